"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from inspect import isawaitable
from typing import Any, Self, overload

from serving.client import transport
from serving.client.client import File, Settings
from serving.client.errors import RowError
from serving.client.model_info import Answer, AnyFrame, Raw, Row, Served
from serving.client.request import Batch, Request, in_order_async, is_stream, located, rows_before, stream_async
from serving.client.retries import pauses


class AsyncClient(Settings[transport.AsyncTransport, Callable[[], str | Awaitable[str]]]):
    """The same client for one event loop. `token` may also be a coroutine function."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
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
        """Return an awaitable for the result of `Client.predict`, with the same exceptions.

        For an iterator or an asynchronous iterator of rows, return an asynchronous iterator of answers.
        """
        return self._streamed(rows, probabilities) if is_stream(rows) else self._predict(rows, probabilities)

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
        return served.answers(outputs, probabilities, raw)

    async def describe(self) -> Served:
        """As `Client.describe`."""
        served = self._served
        if served is None:
            self._served = served = await self._described(self.model)
        return served

    async def _described(self, model: str) -> Served:
        return Served.of(await self._call(lambda triton, given: triton.config(model, *given)))

    async def _predict(self, rows: Any, probabilities: bool) -> Any:
        request = Request(rows, await self.describe())

        async def batches() -> AsyncIterator[Batch]:
            for batch in request.batches:
                yield batch

        answers: list[Answer] = []
        async for some in in_order_async(batches(), lambda batch: self._ask(batch, probabilities, request.with_place)):
            answers += some
        return request.result(answers)

    async def _streamed(self, rows: Any, probabilities: bool) -> AsyncIterator[Answer]:
        async def ask(batch: Batch) -> list[Any]:
            try:
                return await self._ask(batch, probabilities, RowError.at)
            except RowError as error:
                before = rows_before(batch, error)
                return [*(await ask(before) if before else ()), error]

        async for answers in in_order_async(stream_async(rows, await self.describe()), ask):
            for answer in answers:
                if isinstance(answer, RowError):
                    raise answer
                yield answer

    async def _ask(
        self, batch: Batch, probabilities: bool, with_place: Callable[[RowError, int], RowError]
    ) -> list[Answer]:
        if batch.error is not None:
            raise batch.error
        try:
            return await self.ask(batch.raw, probabilities=probabilities)
        except RowError as error:
            raise located(error, batch, with_place) from error

    async def _call(self, request: Callable[[transport.AsyncTransport, tuple[Any, ...]], Awaitable[Any]]) -> Any:
        remaining = pauses(self.retry_s)
        while True:
            token = self._token() if callable(self._token) else self._token
            options = (self._all_headers(await token if isawaitable(token) else token), self.timeout_s)
            connection = self._connection(transport.connect_async)
            try:
                return await request(connection, options)
            except Exception as error:  # the libraries' exceptions have no common base class
                pause_s = self._pause_s(remaining, error)
            await asyncio.sleep(pause_s)
