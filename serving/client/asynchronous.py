"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from inspect import isawaitable
from typing import Any, Self, overload

from serving.client import transport
from serving.client.client import File, Settings
from serving.client.errors import RowError, pauses
from serving.client.model_info import Answer, AnyFrame, Raw, Row, Served
from serving.client.question import Batch, Question, blamed, in_order_async, is_stream, stream_async


class AsyncClient(Settings[transport.AsyncTransport, Callable[[], str | Awaitable[str]]]):
    """As `Client`, in one event loop. `token` may be a coroutine function, too."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        if (connection := self._connections.pop(os.getpid(), None)) is not None:
            await connection.close()

    @overload
    def predict(self, rows: Row, *, probabilities: bool = False) -> Coroutine[Any, Any, Answer]: ...
    @overload
    def predict(
        self, rows: File | Collection[Row], *, probabilities: bool = False
    ) -> Coroutine[Any, Any, list[Answer]]: ...
    @overload
    def predict(
        self, rows: AsyncIterable[Row] | Iterator[Row], *, probabilities: bool = False
    ) -> AsyncIterator[Answer]: ...
    @overload
    def predict(self, rows: AnyFrame, *, probabilities: bool = False) -> Coroutine[Any, Any, AnyFrame]: ...

    def predict(self, rows: Any, *, probabilities: bool = False) -> Any:
        """As `Client.predict`, with the same exceptions: to be awaited.

        Of an iterator or an asynchronous one: an asynchronous iterator of answers, for `async for`.
        """
        return self._streamed(rows, probabilities) if is_stream(rows) else self._whole(rows, probabilities)

    async def ask(self, raw: Raw, *, probabilities: bool = False) -> list[Answer]:
        """As `Client.ask`."""
        served = await self.describe()
        try:
            result = await self._call(lambda triton, given: triton.infer(self.model, self._inputs(served, raw), *given))
        except RowError:
            self._served = None  # another release may take other columns
            raise
        outputs = self._outputs(served, result)
        if other := self._replaced(served, outputs):
            self._served = served = await self._described(other)
        return served.answers(outputs, probabilities)

    async def describe(self) -> Served:
        """As `Client.describe`."""
        served = self._served
        if served is None:
            self._served = served = await self._described(self.model)
        return served

    async def _described(self, model: str) -> Served:
        return Served.of(await self._call(lambda triton, given: triton.config(model, *given)))

    async def _whole(self, rows: Any, probabilities: bool) -> Any:
        question = Question(rows, await self.describe())

        async def batches() -> AsyncIterator[Batch]:
            for batch in question.batches:
                yield batch

        answers: list[Answer] = []
        async for some in in_order_async(batches(), lambda batch: self._ask(batch, probabilities, question.placed)):
            answers += some
        return question.answered(answers)

    async def _streamed(self, rows: Any, probabilities: bool) -> AsyncIterator[Answer]:
        batches = stream_async(rows, await self.describe())
        async for some in in_order_async(batches, lambda batch: self._ask(batch, probabilities, RowError.at)):
            for answer in some:
                yield answer

    async def _ask(
        self, batch: Batch, probabilities: bool, placed: Callable[[RowError, int], RowError]
    ) -> list[Answer]:
        if batch.error is not None:
            raise batch.error
        try:
            return await self.ask(batch.raw, probabilities=probabilities)
        except RowError as error:
            raise blamed(error, batch, placed) from error

    async def _call(self, request: Callable[[transport.AsyncTransport, tuple[Any, ...]], Awaitable[Any]]) -> Any:
        left = pauses(self.retry_s)
        while True:
            token = self._token() if callable(self._token) else self._token
            given = (self._all_headers(await token if isawaitable(token) else token), self.timeout_s)
            connection = self._connection(transport.connect_async)
            try:
                return await request(connection, given)
            except Exception as error:  # the libraries below have no base class in common
                pause_s = self._pause_s(left, error)
            await asyncio.sleep(pause_s)
