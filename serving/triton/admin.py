"""A running server as its keeper sees it: models are loaded and unloaded, and golden rows must be answered as ever."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from serving.triton import wire
from serving.triton.launcher import ADMIN_HEADER, GRPC_PREFIX, Endpoint
from serving.triton.port_owner import listens_in
from stages.core.errors import UserError
from stages.schema import IDENTIFIERS, Schema

TIMEOUT_S = 60.0
DRAIN_S = 10.0


class Unanswered(UserError):
    """A server did not do what it should. `status`: gRPC's code, such as DEADLINE_EXCEEDED."""

    def __init__(self, text: str, status: str) -> None:
        super().__init__(text)
        self.status = status


class Admin:
    """The administration of one server by gRPC. No call takes longer than `timeout_s`."""

    def __init__(self, client: Any, key: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._headers = {GRPC_PREFIX + ADMIN_HEADER: key}
        self.timeout_s = timeout_s

    def load(self, model: str) -> None:
        """Load a model, and what it consists of, as it is on disk.

        Raises:
            UserError: it cannot be loaded; what was there before goes on answering.
        """
        self._say(f"cannot load {model}", "load_model", model, headers=self._headers)

    def unload(self, model: str) -> None:
        """Unload a model with its parts, unless it is not there."""
        self._say(f"cannot unload {model}", "unload_model", model, headers=self._headers, unload_dependents=True)

    def loaded(self) -> list[str]:
        """The models that are ready."""
        return self._states(("READY",))

    def wait_unloaded(self, model: str) -> None:
        """Return when an unloaded model has answered all it was asked, or after DRAIN_S: a dead one never does."""
        deadline = time.monotonic() + DRAIN_S
        while model in self._states(("READY", "UNLOADING")) and time.monotonic() < deadline:
            time.sleep(0.01)

    def is_live(self, timeout_s: float) -> bool:
        """Whether the server itself says within `timeout_s` that it lives, whatever its models do."""
        with contextlib.suppress(UserError):
            return bool(self._told("is not live", self._client.is_server_live, client_timeout=timeout_s))
        return False

    def answered(self, models: Sequence[str], timeout_s: float) -> int | None:
        """Requests that these models have answered well since they were loaded; None where the server does not say."""
        count = 0
        for model in models:
            try:
                found = self._told(
                    "no statistics", self._client.get_inference_statistics, model, client_timeout=timeout_s
                )
            except UserError:
                return None
            count += sum(int(each.inference_stats.success.count) for each in found.model_stats)
        return count

    def answers(
        self,
        model: str,
        schema: Schema,
        raw: Mapping[str, Sequence[Any]],
        timeout_s: float,
        request_id: str = wire.PROBE,
    ) -> dict[str, np.ndarray]:
        """What a model answers to golden rows: every output as `wire.outputs` gives it.

        Raises:
            Unanswered: it does not.
        """
        answers: dict[str, np.ndarray] = self._told(
            f"{model} does not answer", wire.ask, self._client, model, schema, raw, timeout_s, request_id
        )
        return answers

    def _states(self, states: tuple[str, ...]) -> list[str]:
        index = self._say("cannot list its models", "get_model_repository_index", headers=self._headers)
        return [model.name for model in index.models if model.state in states]

    def _say(self, failing: str, method: str, *arguments: Any, **options: Any) -> Any:
        return self._told(failing, getattr(self._client, method), *arguments, client_timeout=self.timeout_s, **options)

    def _told(self, failing: str, call: Any, *arguments: Any, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return call(*arguments, **options)
        except InferenceServerException as error:
            if ADMIN_HEADER in error.message():
                raise UserError("live/key is not the server's: end `millrace serve`, and start it again") from error
            status = str(error.status() or "").removeprefix("StatusCode.")
            raise Unanswered(f"{failing}: {error.message()}", status) from error


@contextlib.contextmanager
def administered(address: str, key: str, timeout_s: float = TIMEOUT_S) -> Iterator[Admin]:
    """The server whose gRPC is at HOST:PORT."""
    with wire.connected(address) as client:
        yield Admin(client, key, timeout_s)


def announcement(endpoint: Endpoint, pid: int) -> dict[str, Any]:
    """How other commands find a server, and know it."""
    return {
        "http": endpoint.http,
        "grpc": endpoint.grpc,
        "metrics": endpoint.metrics,
        "identity": endpoint.identity,
        "identifiers": list(IDENTIFIERS),  # that its keeper can read in answers
        "pid": pid,
    }


def is_server(address: str, identity: str) -> bool:
    """Whether the server there is this one and lives, and no other that has its port now."""
    host, _, port = address.partition(":")
    if not listens_in(int(port), identity):
        return False
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
