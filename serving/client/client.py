"""The clients: for threads and for asyncio."""

from __future__ import annotations

import asyncio
import http.client
import random
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload
from urllib.parse import urlsplit

from serving import wire
from serving.client.model_info import Answer, Outputs, Question, Raw, Row, Served, ServerError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Answer", "AsyncClient", "Client", "Row", "Served", "ServerError", "Unavailable"]

PROTOCOLS = {"grpc": "gRPC", "http": "HTTP"}
LONGEST_PAUSE_S = 2.0
IN_FLIGHT = 4  # requests of one `predict` that an AsyncClient has under way
_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 50),  # gRPC's own second would swallow our shorter pauses
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Unavailable(ConnectionError):
    """No model answers there, and none did when asked again."""


class _Asking:
    """What both clients are."""

    def __init__(
        self, server: str, model: str, *, timeout_s: float = 10.0, retries: int = 3, pause_s: float = 0.1
    ) -> None:
        """`server`: HOST:PORT of its gRPC, grpc://HOST:PORT or http://HOST:PORT. Nothing is sent yet.

        `timeout_s` holds for each request. Where no model answers, and nowhere else, a request is sent again, up to
        `retries` times, after pauses that double from `pause_s` up to two seconds: to ask twice changes nothing.

        Raises:
            ValueError: `server` is no such address.
        """
        self._protocol, self._address = parsed(server)
        self.server, self.model, self.timeout_s = server, model, timeout_s
        self._pauses_s = [min(pause_s * 2**i, LONGEST_PAUSE_S) for i in range(retries)]
        self._client: Any = None
        self._served: Served | None = None

    @property
    def _triton(self) -> Any:
        if self._protocol == "grpc":
            import tritonclient.grpc

            return tritonclient.grpc
        import tritonclient.http

        return tritonclient.http

    def _options(self) -> list[tuple[str, int]]:
        return wire.channel_options(self._address) + _RECONNECT

    def _request(self, served: Served, raw: Raw) -> tuple[str, list[Any]]:
        return self.model, wire.inputs(self._triton, served.inputs, raw)

    def _outputs(self, served: Served, result: Any) -> Outputs:
        return wire.outputs(result, served.outputs)

    def _replaced(self, served: Served, outputs: Outputs) -> str:
        """The name of another release than `served`, if one has answered: the model was replaced meanwhile."""
        release = str(outputs["release"][0])
        return "" if release == served.release else f"{self.model}_{release}"

    def _pause_s(self, attempt: int, error: Exception) -> float:
        """How long to wait before a request that failed is sent again.

        Raises:
            ValueError, Unavailable, TimeoutError, ServerError: it is not.
        """
        fault = self._fault(error)
        if attempt >= len(self._pauses_s) or not isinstance(fault, Unavailable):
            raise fault from error
        return float(self._pauses_s[attempt] * random.uniform(0.5, 1))  # so that many clients do not come back at once

    def _fault(self, error: Exception) -> Exception:
        """What has happened, in our words."""
        from tritonclient.utils import InferenceServerException

        aiohttp = sys.modules.get("aiohttp")
        lost = (OSError, http.client.HTTPException, *((aiohttp.ClientError,) if aiohttp else ()))
        nobody = f"no model answers at {self.server} by {PROTOCOLS[self._protocol]}"
        late = f"{self.server} did not answer within {self.timeout_s:g} s"
        if isinstance(error, InferenceServerException):
            status, said = (error.status() or "").removeprefix("StatusCode."), error.message()
            if status in ("UNAVAILABLE", "503") or "has no available versions" in said:  # while a server ends
                return Unavailable(f"{nobody} ({said})")
            if status in ("INVALID_ARGUMENT", "400"):
                return ValueError(re.sub(r"^in ensemble '.*?', ", "", said))
            return TimeoutError(late) if status == "DEADLINE_EXCEEDED" else ServerError(f"{self.server} says: {said}")
        if isinstance(error, TimeoutError):
            return TimeoutError(late)
        reason = str(error).partition("\n")[0] or type(error).__name__
        return Unavailable(f"{nobody} ({reason})") if isinstance(error, lost) else error


class Client(_Asking):
    """Asks one model on one server. Over gRPC threads may share it; over HTTP each needs its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @overload
    def predict(self, rows: Row, *, probabilities: bool = False) -> Answer: ...
    @overload
    def predict(self, rows: Iterable[Row] | str | Path, *, probabilities: bool = False) -> list[Answer]: ...
    @overload
    def predict(self, rows: DataFrame, *, probabilities: bool = False) -> DataFrame: ...

    def predict(self, rows: Any, *, probabilities: bool = False) -> Any:
        """A row, several, a data frame or a table's path -> an answer, a list or a frame of them, in the same order.

        Raises:
            ValueError: a row that the model cannot take, or none at all.
            Unavailable: no model answers.
            TimeoutError: it does not within `timeout_s`.
            ServerError: the server cannot answer.
        """
        question = Question(rows, self.describe())
        answers: list[Answer] = []
        for first, raw in question.batches():
            try:
                answers += self.ask(raw, probabilities=probabilities)
            except ValueError as error:
                raise question.blamed(error, first, raw) from error
        return question.answered(answers)

    def ask(self, raw: Raw, *, probabilities: bool = False) -> list[Answer]:
        """Rows as `Served.raw` gives them, {column: [n]}, in one request."""
        served = self.describe()
        try:
            outputs = self._outputs(served, self._call("infer", *self._request(served, raw)))
        except ValueError:
            self._served = None  # another release may take other columns
            raise
        if other := self._replaced(served, outputs):
            self._served = served = self._described(other)
        return served.answers(outputs, probabilities)

    def describe(self) -> Served:
        """What the server says of the model; it is asked once, and again when another release answers."""
        if self._served is None:
            self._served = self._described(self.model)
        return self._served

    def _described(self, model: str) -> Served:
        if self._protocol == "grpc":
            return Served.of(self._call("get_model_config", model, as_json=True)["config"])
        return Served.of(self._call("get_model_config", model))

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self._client is None:
            self._client = self._connected()
        if self._protocol == "grpc":
            options["client_timeout"] = self.timeout_s
        attempt = 0
        while True:
            try:
                return getattr(self._client, method)(*arguments, **options)
            except Exception as error:  # the libraries below have no base class in common
                pause_s = self._pause_s(attempt, error)
            time.sleep(pause_s)
            attempt += 1

    def _connected(self) -> Any:
        if self._protocol == "grpc":
            return self._triton.InferenceServerClient(self._address, channel_args=self._options())
        limits = {"connection_timeout": self.timeout_s, "network_timeout": self.timeout_s}
        return self._triton.InferenceServerClient(self._address, **limits)


class AsyncClient(_Asking):
    """The same for asyncio, in one event loop; a few requests of one `predict` are under way at a time."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    @overload
    async def predict(self, rows: Row, *, probabilities: bool = False) -> Answer: ...
    @overload
    async def predict(self, rows: Iterable[Row] | str | Path, *, probabilities: bool = False) -> list[Answer]: ...
    @overload
    async def predict(self, rows: DataFrame, *, probabilities: bool = False) -> DataFrame: ...

    async def predict(self, rows: Any, *, probabilities: bool = False) -> Any:
        """As `Client.predict`, with the same exceptions."""
        question = Question(rows, await self.describe())
        free = asyncio.Semaphore(IN_FLIGHT)

        async def answers(first: int, raw: Raw) -> list[Answer]:
            async with free:
                try:
                    return await self.ask(raw, probabilities=probabilities)
                except ValueError as error:
                    raise question.blamed(error, first, raw) from error

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answers(first, raw)) for first, raw in question.batches()]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return question.answered([answer for task in tasks for answer in task.result()])

    async def ask(self, raw: Raw, *, probabilities: bool = False) -> list[Answer]:
        """As `Client.ask`."""
        served = await self.describe()
        try:
            outputs = self._outputs(served, await self._call("infer", *self._request(served, raw)))
        except ValueError:
            self._served = None  # another release may take other columns
            raise
        if other := self._replaced(served, outputs):
            self._served = served = await self._described(other)
        return served.answers(outputs, probabilities)

    async def describe(self) -> Served:
        """As `Client.describe`."""
        if self._served is None:
            self._served = await self._described(self.model)
        return self._served

    async def _described(self, model: str) -> Served:
        if self._protocol == "grpc":
            return Served.of((await self._call("get_model_config", model, as_json=True))["config"])
        return Served.of(await self._call("get_model_config", model))

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self._client is None:
            self._client = self._connected()
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(self.timeout_s):
                    return await getattr(self._client, method)(*arguments, **options)
            except Exception as error:  # the libraries below have no base class in common
                pause_s = self._pause_s(attempt, error)
            await asyncio.sleep(pause_s)
            attempt += 1

    def _connected(self) -> Any:
        if self._protocol == "grpc":
            import tritonclient.grpc.aio

            return tritonclient.grpc.aio.InferenceServerClient(self._address, channel_args=self._options())
        import tritonclient.http.aio

        return tritonclient.http.aio.InferenceServerClient(self._address, conn_timeout=self.timeout_s)


def parsed(server: str) -> tuple[str, str]:
    """grpc://HOST:PORT or the like -> the protocol, and HOST:PORT.

    Raises:
        ValueError: it is no such address.
    """
    protocol, _, address = server.rpartition("://")
    protocol = protocol or "grpc"
    try:
        port = urlsplit(f"//{address}").port
    except ValueError:
        port = None
    if protocol not in PROTOCOLS or not port:
        raise ValueError(f"{server!r} is no address of a server: write HOST:PORT, grpc://HOST:PORT or http://HOST:PORT")
    return protocol, address
