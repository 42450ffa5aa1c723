"""The client for threads, and what the one for asyncio has in common with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from serving.client import transport
from serving.client.connection import NAMES, Address, Tls, checked
from serving.client.errors import RowError, Unavailable, explained, pauses
from serving.client.model_info import Answer, AnyFrame, Outputs, Raw, Row, Served
from serving.client.question import IN_FLIGHT, Batch, Question, blamed, in_order, is_stream, stream
from serving.triton import wire

Connection = TypeVar("Connection")
Token = TypeVar("Token")
File = str | Path

_grpc_process = 0  # the first that a client used gRPC in


class Settings(Generic[Connection, Token]):
    """What both clients are."""

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
        """Nothing is sent yet.

        Args:
            server: HOST:PORT of its gRPC, or an address that begins with grpc://, grpcs://, http:// or https://.
            model: its public name.
            timeout_s: seconds that each request may take.
            retry_s: seconds for which a request is sent again where no model answers, and nowhere else: a server that
                is restarted, or not up yet. To ask twice changes nothing. A request that took too long is not repeated.
            ca: a PEM file of the authorities that may have signed the server's certificate; without it those of the
                system, and over gRPC its own list or that of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
            certificate: the client's own: PEM files of the chain and of the key, for a server that wants one.
            headers: sent with each request; over gRPC as metadata.
            token: sent with each request as `Authorization: Bearer TOKEN`; or a function that returns one, called
                before each request.

        Raises:
            ValueError: `server` is no such address, or a header or a file is none that can be used.
            OSError: a file cannot be read.
        """
        self._address = Address.parse(server)
        self._tls = Tls(Path(ca) if ca else None, (Path(certificate[0]), Path(certificate[1])) if certificate else None)
        if self._address.encrypted:
            self._tls.context()  # whose faults shall be found now
        elif ca or certificate:
            raise ValueError(
                f"{server} is not encrypted: write grpcs:// or https:// where `ca` or `certificate` is given"
            )
        self._headers, self._token = checked(headers or {}), token
        self.server, self.model, self.timeout_s, self.retry_s = server, model, timeout_s, retry_s
        self._connections: dict[int, Connection] = {}  # by process: a forked one must not speak in its parent's
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
        """The name of another release than `served`, if one has answered: the model was replaced meanwhile."""
        release = str(outputs["release"][0])
        return "" if release == served.release else f"{self.model}_{release}"

    def _pause_s(self, left: Iterator[float], error: Exception) -> float:
        """How long to wait before a request that failed is sent again.

        Raises:
            ValueError, Unavailable, TlsError, AccessDenied, TimeoutError, ServerError: it is not.
        """
        reason = explained(error, self.server, NAMES[self._address.protocol], self.timeout_s)
        pause_s = next(left, None) if isinstance(reason, Unavailable) else None
        if pause_s is None:
            raise reason from error
        return pause_s


class Client(Settings[transport.Transport, Callable[[], str]]):
    """Asks one model on one server. Threads may share it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
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
        """A row, several, a data frame or a table's path -> an answer, a list or a frame of them, in the same order.

        An iterator, such as a generator, gives an iterator of answers: rows are taken from it as answers are taken from
        that, a few requests ahead, so that neither are ever all in memory.

        Raises:
            RowError: a row that the model cannot take; a ValueError, with `row` and `column`.
            ValueError: no row at all.
            Unavailable: no model answers.
            TlsError: the server's certificate is not trusted, or ours is not.
            AccessDenied: the server wants other credentials.
            TimeoutError: it does not answer within `timeout_s`.
            ServerError: it cannot answer.
        """
        if is_stream(rows):
            return self._streamed(rows, probabilities)
        question = Question(rows, self.describe())

        def ask(batch: Batch) -> list[Answer]:
            return self._ask(batch, probabilities, question.placed)

        if len(question.batches) == 1:
            return question.answered(ask(question.batches[0]))
        with _workers() as pool:
            return question.answered(list(in_order(question.batches, lambda batch: pool.submit(ask, batch))))

    def ask(self, raw: Raw, *, probabilities: bool = False) -> list[Answer]:
        """Rows as `Served.raw` gives them, {column: [n]}, in one request."""
        served = self.describe()
        try:
            result = self._call(lambda triton, given: triton.infer(self.model, self._inputs(served, raw), *given))
        except RowError:
            self._served = None  # another release may take other columns
            raise
        outputs = self._outputs(served, result)
        if other := self._replaced(served, outputs):
            self._served = served = self._described(other)
        return served.answers(outputs, probabilities)

    def describe(self) -> Served:
        """What the server says of the model; it is asked once, and again when another release answers."""
        served = self._served
        if served is None:
            self._served = served = self._described(self.model)
        return served

    def _described(self, model: str) -> Served:
        return Served.of(self._call(lambda triton, given: triton.config(model, *given)))

    def _streamed(self, rows: Iterator[Row], probabilities: bool) -> Iterator[Answer]:
        def ask(batch: Batch) -> list[Answer]:
            return self._ask(batch, probabilities, RowError.at)

        def submit(batch: Batch) -> Future[list[Answer]]:
            return pool.submit(ask, batch)

        with _workers() as pool:
            yield from in_order(stream(rows, self.describe()), submit)

    def _ask(self, batch: Batch, probabilities: bool, placed: Callable[[RowError, int], RowError]) -> list[Answer]:
        if batch.error is not None:
            raise batch.error
        try:
            return self.ask(batch.raw, probabilities=probabilities)
        except RowError as error:
            raise blamed(error, batch, placed) from error

    def _call(self, request: Callable[[transport.Transport, tuple[Any, ...]], Any]) -> Any:
        left = pauses(self.retry_s)
        while True:
            token = self._token() if callable(self._token) else self._token
            given = (self._all_headers(token), self.timeout_s)
            connection = self._connection(transport.connect)
            try:
                return request(connection, given)
            except Exception as error:  # the libraries below have no base class in common
                pause_s = self._pause_s(left, error)
            time.sleep(pause_s)


class _workers(ThreadPoolExecutor):
    """Threads that nobody waits for when a caller takes no more answers."""

    def __init__(self) -> None:
        super().__init__(IN_FLIGHT, thread_name_prefix="millrace-client")

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=False, cancel_futures=True)


def _check_fork(address: Address) -> None:
    """gRPC's threads do not follow into a forked process: its calls would hang there for ever, and break the parent's.

    Raises:
        RuntimeError: this is one, its parent had used gRPC, and gRPC was not made ready for that.
    """
    global _grpc_process
    ready = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true", "yes", "y")
    if address.protocol == "grpc" and not ready:
        _grpc_process = _grpc_process or os.getpid()
        if _grpc_process != os.getpid():
            raise RuntimeError(
                "a client had used gRPC before this process was forked, and would hang here: fork first, use"
                ' multiprocessing.get_context("spawn") or http://, or begin with GRPC_ENABLE_FORK_SUPPORT=1'
            )
