"""Administration of a running server: load and unload models, ask whether it lives, and query its golden rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.triton import loopback, wire
from serving.triton.launcher import ADMIN_HEADER, GRPC_PREFIX, Endpoint
from serving.triton.port_owner import listens_in
from stages.core.errors import UserError
from stages.schema import IDENTIFIERS, Schema

TIMEOUT_S = 60.0
DRAIN_S = 10.0


class CallFailed(UserError):
    """A call to the server failed. `status`: its gRPC status code, such as DEADLINE_EXCEEDED."""

    def __init__(self, code: str, sentence: str, status: str) -> None:
        super().__init__(code, sentence)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, str(self), self.status), self.__dict__


class Successes(NamedTuple):
    """The requests that a model has answered without an error since it was loaded."""

    requests: int
    seconds: float  # that they took together


class Admin:
    """Administers one server by gRPC. No call takes longer than `timeout_s`."""

    def __init__(self, client: Any, key: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._headers = {GRPC_PREFIX + ADMIN_HEADER: key}
        self.timeout_s = timeout_s

    def load(self, model: str) -> None:
        """Load a model and its parts as they are on disk.

        Raises:
            UserError: it cannot be loaded; the version that was loaded before goes on answering.
        """
        self._administer(f"cannot load {model}", "load_model", model, headers=self._headers)

    def unload(self, model: str) -> None:
        """Unload a model and its parts. Does nothing where the model is not loaded."""
        self._administer(f"cannot unload {model}", "unload_model", model, headers=self._headers, unload_dependents=True)

    def loaded(self) -> list[str]:
        """Return the names of the models that are ready."""
        return self._models_in(("READY",))

    def wait_unloaded(self, model: str) -> None:
        """Wait until an unloaded model has answered its last request, at most DRAIN_S: a dead worker never does."""
        deadline = time.monotonic() + DRAIN_S
        while model in self._models_in(("READY", "UNLOADING")) and time.monotonic() < deadline:
            time.sleep(0.01)

    def is_live(self, timeout_s: float) -> bool:
        """Whether the server itself reports within `timeout_s` that it is live, whatever its models do."""
        with contextlib.suppress(UserError):
            return bool(self._call("is not live", self._client.is_server_live, client_timeout=timeout_s))
        return False

    def successes(self, model: str, timeout_s: float) -> Successes:
        """Count the requests that a model has answered without an error.

        Raises:
            CallFailed: the server does not report it.
        """
        statistics = self._call(
            "no statistics", self._client.get_inference_statistics, model, client_timeout=timeout_s
        ).model_stats
        successes = [version.inference_stats.success for version in statistics]
        nanoseconds = sum(int(success.ns) for success in successes)
        return Successes(sum(int(success.count) for success in successes), nanoseconds / 1e9)

    def success_count(self, models: Sequence[str], timeout_s: float) -> int | None:
        """Count the requests that several models have answered without an error; None where that is not known."""
        with contextlib.suppress(UserError):
            return sum(self.successes(model, timeout_s).requests for model in models)
        return None

    def answers(
        self,
        model: str,
        schema: Schema,
        raw: Mapping[str, Sequence[Any]],
        timeout_s: float,
        request_id: str = wire.PROBE,
    ) -> dict[str, np.ndarray]:
        """Send raw rows {column: [n]} to a model and return its outputs, in the form of `wire.outputs`.

        Raises:
            CallFailed: the model does not answer.
        """
        answers: dict[str, np.ndarray] = self._call(
            f"{model} does not answer", wire.ask, self._client, model, schema, raw, timeout_s, request_id
        )
        return answers

    def _models_in(self, states: tuple[str, ...]) -> list[str]:
        index = self._administer("cannot list its models", "get_model_repository_index", headers=self._headers)
        return [model.name for model in index.models if model.state in states]

    def _administer(self, failure: str, method: str, *arguments: Any, **options: Any) -> Any:
        return self._call(failure, getattr(self._client, method), *arguments, client_timeout=self.timeout_s, **options)

    def _call(self, failure: str, function: Any, *arguments: Any, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return function(*arguments, **options)
        except InferenceServerException as error:
            if ADMIN_HEADER in error.message():
                raise UserError(
                    "server-other-key", "live/key is not the server's key: end `millrace serve`, and start it again"
                ) from error
            status = str(error.status() or "").removeprefix("StatusCode.")
            raise CallFailed("server-failed", f"{failure}: {error.message()}", status) from error


@contextlib.contextmanager
def administered(address: str, key: str, timeout_s: float = TIMEOUT_S) -> Iterator[Admin]:
    """Yield the administration of the server whose gRPC is at HOST:PORT."""
    with wire.connected(address) as client:
        yield Admin(client, key, timeout_s)


def announcement(endpoint: Endpoint, pid: int) -> dict[str, Any]:
    """Return what other commands need to find a server and to recognize it. `pid`: the process that supervises it."""
    return {
        "http": endpoint.http,
        "grpc": endpoint.grpc,
        "metrics": endpoint.metrics,
        "identity": endpoint.identity,
        "identifiers": list(IDENTIFIERS),  # the ones that the supervisor can read in answers
        "pid": pid,
    }


def is_server(address: str, identity: str) -> bool:
    """Whether the server with this identity listens at HOST:PORT and is live; another server there does not count."""
    port = int(address.rpartition(":")[2])
    return listens_in(port, identity) and loopback.get(address, "/v2/health/live") is not None
