"""The supervisor heals a stopped or hung server, and leaves one alone that is busy or gets bad requests."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.releases import health, supervisor
from serving.releases.health import Case, Finding, Miss
from serving.releases.ledger import Journal
from serving.releases.store import Store
from serving.releases.supervisor import Backoff, Watch
from serving.triton import processes, wire
from serving.triton.admin import Admin, CallFailed, administered
from serving.triton.launcher import Endpoint, find_server
from serving.triton.names import Names
from serving.triton.repository import golden
from tests.support.line import free_ports, read_until
from tests.support.project import Clone, until
from tests.support.releases import live_answers, served

pytestmark = pytest.mark.usefixtures("a_server")

DEADLINE_S = 60.0
LOOK_S = 1.0


@contextlib.contextmanager
def watched(root: Path, timeout_s: float = LOOK_S) -> Iterator[tuple[Watch, list[str]]]:
    """A server, its supervisor, which probes only when a test calls it, and the supervisor's reports."""
    store, reports = Store(root / "live"), list[str]()
    with served(store) as endpoint, administered(endpoint.grpc, endpoint.admin_key, 10) as admin:
        watch = Watch(root, store, endpoint, admin, Journal(store.ledger, reports.append), reports.append, timeout_s)
        assert watch.look("digits") == (True, "")
        yield watch, reports


def below(endpoint: Endpoint) -> list[processes.Process]:
    return processes.family(endpoint.process.pid)


def worker(watch: Watch, part: str) -> int:
    """Return the worker process of a part of the live release."""
    (process,) = processes.workers(below(watch.endpoint), f"digits_{watch.store.current('digits')}_{part}")
    return process.pid


def healed(watch: Watch, reports: list[str]) -> Callable[[], bool]:
    """Probe until the live release answers again, and check that it was healed."""

    def condition() -> bool:
        answers, reason = watch.look("digits")
        assert not reason
        return answers and any("healing" in line for line in reports)

    return condition


def test_a_stopped_server_is_killed_and_no_call_waits_for_it(after_two):
    with watched(after_two) as (watch, reports):
        (server,) = processes.servers(below(watch.endpoint))
        os.kill(server.pid, signal.SIGSTOP)
        with administered(watch.endpoint.grpc, watch.endpoint.admin_key, 0.2) as hasty:
            calls: list[Callable[[Admin], object]] = [
                lambda admin: admin.load("digits"),
                lambda admin: admin.unload("digits"),
                lambda admin: admin.loaded(),
            ]
            for call in calls:
                with pytest.raises(CallFailed) as caught:
                    call(hasty)
                assert caught.value.status == "DEADLINE_EXCEEDED"
            assert not hasty.is_live(0.2) and hasty.success_count(["digits"], 0.2) is None
        looks = [watch.look("digits") for _ in range(health.MISSES)]
        assert [bool(why) for _, why in looks] == [False, True] and not reports
        until(lambda: watch.endpoint.process.poll() is not None)


@pytest.mark.parametrize("part", ["encode", "network"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hung"])
def test_a_broken_worker_is_replaced_and_ended(after_two, candidates, part, end):
    if find_server().environment is None and part == "network":
        pytest.skip("this server's network has no process of its own")
    with watched(after_two) as (watch, reports):
        broken = worker(watch, part)
        os.kill(broken, end)
        until(healed(watch, reports))
        assert live_answers(watch.endpoint.grpc, candidates) == candidates[1].manifest.id
        assert broken not in {each.pid for each in below(watch.endpoint) if each.state not in processes.DEAD}
        assert worker(watch, part) != broken


def test_a_server_that_has_lost_many_workers_is_restarted(after_two, monkeypatch):
    """Triton never releases what a worker that died during a request had: 36 threads, and shared memory."""
    monkeypatch.setattr(supervisor, "LOST", 1)
    with watched(after_two) as (watch, reports):
        for _ in range(2):
            os.kill(worker(watch, "encode"), signal.SIGSTOP)
            until(healed(watch, reports))
            reports.clear()
        os.kill(worker(watch, "encode"), signal.SIGSTOP)
        until(lambda: watch.look("digits")[1] != "")


def test_a_busy_server_is_left_alone(after_two, candidates):
    """Every probe times out while other callers get answers."""
    schema, rows = golden(candidates[1].repository, candidates[1].names)
    with watched(after_two) as (watch, reports):
        before, stop = below(watch.endpoint), threading.Event()

        def ask() -> None:
            with wire.connected(watch.endpoint.grpc) as client:
                while not stop.is_set():
                    wire.ask(client, "digits", schema, rows, timeout_s=DEADLINE_S)

        caller = threading.Thread(target=ask)
        caller.start()
        try:
            watch.timeout_s = -1.0  # the deadline has passed before the call
            until(lambda: watch.look("digits") == (False, "") and len(reports) > 0)
            for _ in range(20):
                assert watch.look("digits") == (False, "")
        finally:
            stop.set()
            caller.join()
        assert len(reports) == 1 and "nothing is healed" in reports[0]
        assert {each.pid for each in below(watch.endpoint)} == {each.pid for each in before}


def test_a_probe_that_the_model_rejects_heals_nothing(after_two, monkeypatch):
    with watched(after_two) as (watch, reports):
        before = {each.pid for each in below(watch.endpoint)}
        schema, _ = golden(watch.store.repository, Names("digits", watch.store.current("digits") or ""))
        monkeypatch.setattr(health, "golden", lambda *_: (schema, {"image": [b"no picture"]}))
        for _ in range(5):
            assert watch.look("digits") == (False, "")
        assert len(reports) == 1
        assert {each.pid for each in below(watch.endpoint)} == before


def test_a_computing_worker_has_more_time_than_an_idle_one(after_two, monkeypatch):
    late = Miss("late", "DEADLINE_EXCEEDED")
    with watched(after_two) as (watch, _):
        case = Case(Names("digits", watch.store.current("digits") or ""))
        case.reset(below(watch.endpoint))
        assert case.missed(late, watch.admin, below(watch.endpoint)) is Finding.OPEN
        case.since -= health.STILL_S + 1
        used = [each._replace(cpu_s=each.cpu_s + health.STILL_S) for each in below(watch.endpoint)]
        assert case.missed(late, watch.admin, used) is Finding.OPEN
        assert case.missed(late, watch.admin, below(watch.endpoint)) is Finding.BROKEN
        case.since -= health.COMPUTING_S
        assert case.missed(late, watch.admin, used) is Finding.BROKEN


def test_waits_grow_only_until_the_server_answers():
    waits = Backoff()
    assert waits.next_s() == 0
    grown = [waits.next_s() for _ in range(20)]
    assert grown == sorted(grown) and grown[0] > 0 and grown[-1] == supervisor.LONGEST_WAIT_S
    waits.reset()
    assert waits.next_s() == 0


def test_a_moved_store_ends_the_server_and_is_not_created_again(after_two):
    ports = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
    process = Clone(after_two).start("python", "-m", "flows.cli", "serve", *ports)
    read_until(process, "Ctrl-C ends it")
    after_two.rename(after_two.with_name("elsewhere"))
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert str(after_two / "live") in output.splitlines()[-1] and "Traceback" not in output
    assert not after_two.exists()
