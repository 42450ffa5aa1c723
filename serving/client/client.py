"""The client for threads, and the base class that it shares with the client for asyncio."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from serving.client import transport
from serving.client.connection import NAMES, Address, Tls, checked
from serving.client.errors import RowError, Unavailable, explained
from serving.client.model_info import Answer, AnyFrame, Outputs, Raw, Row, Served
from serving.client.request import IN_FLIGHT, Batch, Request, in_order, is_stream, located, rows_before, stream
from serving.client.retries import pauses
from serving.triton import wire

Connection = TypeVar("Connection")
Token = TypeVar("Token")
File = str | Path

_grpc_process = 0  # the first process in which a client used gRPC


class Settings(Generic[Connection, Token]):
    """What both clients have in common."""

    def __init__(
        self,
        server: str,
        model: str,
        *,
        timeout_s: float = 10.0,
        retry_s: float = 20.0,
        ca: File | None = None,
        certificate: tuple[File, File] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | Token | None = None,
    ) -> None:
        """Set the client up. Nothing is sent yet.

        Args:
            server: HOST:PORT of the server's gRPC, or an address with grpc://, grpcs://, http:// or https://.
            model: the model's public name.
            timeout_s: seconds that each request may take.
            retry_s: seconds for which a request is repeated while no model answers, because a server is restarted or
                not up yet. Repeating is safe, because a request changes nothing. One that timed out is not repeated.
            ca: a PEM file of the authorities that may have signed the server's certificate. By default those of the
                system; over gRPC its own list or that of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
            certificate: the client's own certificate, for a server that requires one: PEM files of the chain and key.
            headers: sent with each request; over gRPC as metadata.
            token: sent with each request as `Authorization: Bearer TOKEN`; or a function that returns one, called
                before each request.

        Raises:
            ValueError: `server` is not such an address, or a header, a file or a number of seconds is invalid.
            OSError: a file cannot be read.
        """
        self._address = Address.parse(server)
        self._tls = Tls(Path(ca) if ca else None, (Path(certificate[0]), Path(certificate[1])) if certificate else None)
        if self._address.encrypted:
            self._tls.context()  # so that bad files are reported now
        elif ca or certificate:
            raise ValueError(
                f"{server} is not encrypted: write grpcs:// or https:// where `ca` or `certificate` is given"
            )
        for name, seconds, least in (("timeout_s", timeout_s, 0.001), ("retry_s", retry_s, 0.0)):
            if not isinstance(seconds, (int, float)) or not least <= seconds < math.inf:
                raise ValueError(f"{name} must be a number of seconds from {least:g} on, not {seconds!r}")
        self._headers, self._token = checked(headers or {}), token
        self.server, self.model, self.timeout_s, self.retry_s = server, model, timeout_s, retry_s
        self._connections: dict[int, Connection] = {}  # by process: a forked process cannot use its parent's
        self._served: Served | None = None

    def _connection(self, connect: Callable[[Address, Tls], Connection]) -> Connection:
        process = os.getpid()
        if (connection := self._connections.get(process)) is None:
            _check_fork(self._address)
            connection = self._connections.setdefault(process, connect(self._address, self._tls))
        return connection

    def _all_headers(self, token: str | None) -> dict[str, str]:
        return self._headers if token is None else self._headers | checked({"authorization": f"Bearer {token}"})

    def _inputs(self, served: Served, raw: Raw) -> list[Any]:
        if self._address.protocol == "grpc":
            import tritonclient.grpc

            return wire.inputs(tritonclient.grpc, served.inputs, raw)
        import tritonclient.http

        return wire.inputs(tritonclient.http, served.inputs, raw)

    def _outputs(self, served: Served, result: Any) -> Outputs:
        return wire.outputs(result, served.outputs)

    def _replaced(self, served: Served, outputs: Outputs) -> str:
        """Return the name of the release that has answered, if it is not `served` because the model was replaced."""
        release = str(outputs["release"][0])
        return "" if release == served.release else f"{self.model}_{release}"

    def _pause_s(self, remaining: Iterator[float], error: Exception) -> float:
        """Return how many seconds to wait before a failed request is repeated.

        Raises:
            ValueError, Unavailable, TlsError, AccessDenied, TimeoutError, ServerError: it is not repeated.
        """
        reason = explained(error, self.server, NAMES[self._address.protocol], self.timeout_s)
        pause_s = next(remaining, None) if isinstance(reason, Unavailable) else None
        if pause_s is None:
            raise reason from error
        return pause_s


class Client(Settings[transport.Transport, Callable[[], str]]):
    """A client of one model on one server. Threads may share it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if (connection := self._connections.pop(os.getpid(), None)) is not None:
            connection.close()

    @overload
    def predict(self, rows: Row, *, probabilities: bool = False) -> Answer: ...
    @overload
    def predict(self, rows: File | Collection[Row], *, probabilities: bool = False) -> list[Answer]: ...
    @overload
    def predict(self, rows: Iterator[Row], *, probabilities: bool = False) -> Iterator[Answer]: ...
    @overload
    def predict(self, rows: AnyFrame, *, probabilities: bool = False) -> AnyFrame: ...

    def predict(self, rows: Any, *, probabilities: bool = False) -> Any:
        """Predict the target of one or more rows.

        Args:
            rows: a row {column: value}, a collection of rows, a data frame, the path of a table, or an iterator.
            probabilities: whether an answer has the probability of every class.

        Returns:
            An answer, a list or a data frame of answers, in the order of the rows. For an iterator of rows an iterator
            of answers, which reads only a few requests ahead, so that neither rows nor answers need be in memory.

        Raises:
            RowError: the model cannot take a row; a ValueError with `row` and `column`.
            ValueError: there is no row.
            Unavailable: no model answers.
            TlsError: the client or the server does not trust the other's certificate.
            AccessDenied: the server requires other credentials.
            TimeoutError: the server does not answer within `timeout_s`.
            ServerError: the server answers with an error.
        """
        if is_stream(rows):
            return self._streamed(rows, probabilities)
        request = Request(rows, self.describe())

        def ask(batch: Batch) -> list[Answer]:
            return self._ask(batch, probabilities, request.with_place)

        if len(request.batches) == 1:
            return request.result(ask(request.batches[0]))
        with _workers() as pool:
            return request.result(list(in_order(request.batches, lambda batch: pool.submit(ask, batch))))

    def ask(self, raw: Raw, *, probabilities: bool = False) -> list[Answer]:
        """Predict rows in the form {column: [n]} of `Served.raw`, in one request."""
        served = self.describe()
        try:
            result = self._call(lambda triton, given: triton.infer(self.model, self._inputs(served, raw), *given))
        except RowError:
            self._served = None  # another release may take other columns
            raise
        outputs = self._outputs(served, result)
        if other := self._replaced(served, outputs):
            self._served = served = self._described(other)
        return served.answers(outputs, probabilities, raw)

    def describe(self) -> Served:
        """Return the server's description of the model. It is requested once, and again after a new release."""
        served = self._served
        if served is None:
            self._served = served = self._described(self.model)
        return served

    def _described(self, model: str) -> Served:
        return Served.of(self._call(lambda triton, given: triton.config(model, *given)))

    def _streamed(self, rows: Iterator[Row], probabilities: bool) -> Iterator[Answer]:
        def ask(batch: Batch) -> list[Any]:
            try:
                return self._ask(batch, probabilities, RowError.at)
            except RowError as error:
                before = rows_before(batch, error)
                return [*(ask(before) if before else ()), error]

        def submit(batch: Batch) -> Future[list[Any]]:
            return pool.submit(ask, batch)

        with _workers() as pool:
            for answer in in_order(stream(rows, self.describe()), submit):
                if isinstance(answer, RowError):
                    raise answer
                yield answer

    def _ask(self, batch: Batch, probabilities: bool, with_place: Callable[[RowError, int], RowError]) -> list[Answer]:
        if batch.error is not None:
            raise batch.error
        try:
            return self.ask(batch.raw, probabilities=probabilities)
        except RowError as error:
            raise located(error, batch, with_place) from error

    def _call(self, request: Callable[[transport.Transport, tuple[Any, ...]], Any]) -> Any:
        remaining = pauses(self.retry_s)
        while True:
            token = self._token() if callable(self._token) else self._token
            options = (self._all_headers(token), self.timeout_s)
            connection = self._connection(transport.connect)
            try:
                return request(connection, options)
            except Exception as error:  # the libraries' exceptions have no common base class
                pause_s = self._pause_s(remaining, error)
            time.sleep(pause_s)


class _workers(ThreadPoolExecutor):
    """Threads that are not waited for when the caller takes no more answers."""

    def __init__(self) -> None:
        super().__init__(IN_FLIGHT, thread_name_prefix="millrace-client")

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=False, cancel_futures=True)


def _check_fork(address: Address) -> None:
    """Check that gRPC can be used in this process.

    gRPC's threads do not exist in a forked process: calls would hang there forever, and break the parent's.

    Raises:
        RuntimeError: the process was forked after a client had used gRPC, without GRPC_ENABLE_FORK_SUPPORT.
    """
    global _grpc_process  # noqa: PLW0603  # it is a fact about the process
    ready = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true", "yes", "y")
    if address.protocol == "grpc" and not ready:
        _grpc_process = _grpc_process or os.getpid()
        if _grpc_process != os.getpid():
            raise RuntimeError(
                "a client used gRPC before this process was forked, and would hang here: fork first, use"
                ' multiprocessing.get_context("spawn") or http://, or set GRPC_ENABLE_FORK_SUPPORT=1'
            )
