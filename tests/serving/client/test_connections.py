"""Connections are shared, repeated and given up as they should be."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from serving.client import (
    AccessDenied,
    AsyncClient,
    Client,
    Served,
    ServerError,
    Unavailable,
    transport,
)
from tests.support.failing import failing
from tests.support.project import ROOT, environment
from tests.support.toy_client import EACH_WAY, LABELS, OLD, Toy, predicted, rows


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_threads_share_a_client(toy: Toy, protocol: str) -> None:
    given = rows(64)
    expected = toy.expected(given)
    with Client(toy.address(protocol), "toy") as client, ThreadPoolExecutor(8) as pool:
        for _ in range(2):  # the second time connections are reused
            answers = list(pool.map(lambda row: client.predict(row, probabilities=True), given, timeout=120))
            served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in answers])
            assert np.abs(served - expected).max() <= 1e-5


FORKED = """
import os, sys, traceback
from serving.client import Client
client = Client(sys.argv[1], "toy", retry_s=0)
client.predict({"town": "Ulm"})
child = os.fork()
if child == 0:
    try:
        os._exit(0 if client.predict({"town": "Ulm"})["release"] else 1)
    except RuntimeError as error:
        os._exit(7)
    finally:
        traceback.print_exc()
        os._exit(1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
client.predict({"town": "Ulm"})  # the parent's connection still works
sys.exit(code)
"""


@pytest.mark.parametrize(("protocol", "support", "code"), [("grpc", "0", 7), ("grpc", "1", 0), ("http", "0", 0)])
def test_a_forked_process_gets_an_answer_or_an_error_at_once(toy: Toy, protocol: str, support: str, code: int) -> None:
    surroundings = environment(ROOT) | {"GRPC_ENABLE_FORK_SUPPORT": support}
    command = [sys.executable, "-c", FORKED, toy.address(protocol)]
    result = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=120)
    assert result.returncode == code, result.stderr


@EACH_WAY
def test_a_model_that_the_server_does_not_have_is_a_server_error(toy: Toy, protocol: str, asynchronous: bool) -> None:
    async def ask(model: str) -> None:
        if asynchronous:
            async with AsyncClient(toy.address(protocol), model) as client:
                await client.predict({})
        else:
            with Client(toy.address(protocol), model) as client:
                client.predict({})

    with pytest.raises(ServerError, match="unknown model: 'tyo'"):
        asyncio.run(ask("tyo"))
    with pytest.raises(ServerError, match="does not describe its columns"):
        asyncio.run(ask(f"toy_{OLD}_encode"))


@EACH_WAY
def test_no_server_and_no_answer_in_time(protocol: str, asynchronous: bool) -> None:
    with socket.socket() as deaf, socket.socket() as silent:
        for each in (deaf, silent):
            each.bind(("127.0.0.1", 0))
        silent.listen()
        nobody, mute = (f"{protocol}://127.0.0.1:{each.getsockname()[1]}" for each in (deaf, silent))
        with failing(Unavailable, "server-unavailable", nobody):
            predicted(nobody, {}, asynchronous, retry_s=0.2)
        with pytest.raises(TimeoutError, match=f"{mute} did not answer within 0.2 s"):
            predicted(mute, {}, asynchronous, timeout_s=0.2)


@EACH_WAY
def test_the_client_waits_for_a_server_that_starts_late(toy: Toy, protocol: str, asynchronous: bool) -> None:
    """The port first refuses connections, then cuts them, then passes them on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = probe.getsockname()
    host, port = getattr(toy.endpoint, protocol).split(":")

    def come_up() -> None:
        refused.wait(60)
        with socket.create_server(place) as late:
            late.accept()[0].close()
        with socket.create_server(place) as late:
            while not done.is_set():
                late.settimeout(0.1)
                with suppress(TimeoutError):
                    client, server = late.accept()[0], socket.create_connection((host, int(port)))
                    for one, other in ((client, server), (server, client)):
                        threading.Thread(target=pump, args=(one, other), daemon=True).start()

    refused, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=come_up)
    thread.start()
    try:
        with pytest.raises(Unavailable):
            predicted(f"{protocol}://127.0.0.1:{place[1]}", {}, asynchronous, retry_s=0)
        timer = threading.Timer(1.0, refused.set)  # some attempts are refused
        timer.start()
        answer = predicted(f"{protocol}://127.0.0.1:{place[1]}", {"town": "Ulm"}, asynchronous)
        assert answer["release"] == OLD
    finally:
        refused.set()
        done.set()
        thread.join()


def pump(one: socket.socket, other: socket.socket) -> None:
    """Pass on everything that comes from one socket to the other."""
    with suppress(OSError), one, other:
        while data := one.recv(1 << 16):
            other.sendall(data)


@pytest.mark.parametrize("server", ["nonsense", "127.0.0.1", "grpc://a:x", ""])
def test_an_invalid_address_is_rejected(server: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT, or begin it with"):
        Client(server, "toy")


class Failing:
    """Replaces a connection: fails with the given statuses, then answers with a configuration."""

    def __init__(self, toy: Toy, *statuses: str) -> None:
        self.statuses, self.calls, self.toy = list(statuses), 0, toy

    def config(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.statuses:
            raise InferenceServerException("as configured", self.statuses.pop(0))
        with Client(self.toy.endpoint.grpc, "toy") as client:
            return client._connection(transport.connect).config("toy", {}, 10)


class Time:
    """A clock that only `sleep` advances."""

    def __init__(self) -> None:
        self.now, self.paused = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.now += seconds


def test_only_requests_to_an_unavailable_server_are_repeated(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    for statuses, error, calls in [
        (["StatusCode.UNAVAILABLE"] * 3, None, 4),
        (["502", "503", "504", "429"], None, 5),
        (["StatusCode.UNAVAILABLE", "StatusCode.INVALID_ARGUMENT"], ValueError, 2),
        (["StatusCode.DEADLINE_EXCEEDED"], TimeoutError, 1),
        (["StatusCode.INTERNAL"], ServerError, 1),
        (["StatusCode.NOT_FOUND"], ServerError, 1),
        (["StatusCode.UNAUTHENTICATED"], AccessDenied, 1),
        (["403"], AccessDenied, 1),
    ]:
        for module in ("client", "retries"):
            monkeypatch.setattr(f"serving.client.{module}.time", Time())
        client = Client("127.0.0.1:1", "toy")
        client._connections[os.getpid()] = failing = Failing(toy, *statuses)  # type: ignore[assignment]
        if error is None:
            assert isinstance(client.describe(), Served)
        else:
            with pytest.raises(error):
                client.describe()
        assert failing.calls == calls


def test_the_pauses_last_long_enough_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time()
    monkeypatch.setattr("serving.client.retries.time", clock)
    monkeypatch.setattr("serving.client.client.time", clock)
    client = Client("127.0.0.1:1", "toy")
    client._connections[os.getpid()] = Failing(None, *["503"] * 1000)  # type: ignore[arg-type, assignment]
    with failing(Unavailable, "server-unavailable"):
        client.describe()
    assert 10 < 19 - 1 <= clock.now <= 20
    for pause_s, longest_s in zip(clock.paused, [0.1, 0.2, 0.4, 0.8, *[1.0] * 100], strict=False):
        assert longest_s / 2 <= pause_s <= longest_s
