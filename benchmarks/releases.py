"""A hundred releases in a row while eight clients ask, and then a rollback: what their callers notice of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workspace
from serving.releases import release as releases
from serving.releases import rollback as rollbacks
from serving.releases import switch as switching
from serving.releases.candidate import Candidate, exported
from serving.releases.store import Store
from serving.triton import manifest, wire
from serving.triton.admin import announcement
from serving.triton.launcher import running
from serving.triton.names import Names, rename
from serving.triton.repository import golden
from stages.settings import params

RELEASES, CLIENTS, KEEP = 100, 8, 3
QUIET_S = 20.0  # of the same clients without a release
AROUND_S = 0.05  # before and after a switch that counts as during it


def main() -> list[dict[str, Any]]:
    """Answers, latencies and memory; every answer is held against those of the release that it names."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, store, first = released(Path(temporary) / "project")
        candidates = [variant(first, Path(temporary) / str(number), 0.05 * number) for number in range(1, RELEASES + 1)]
        known = {each.manifest.id: each.golden for each in (first, *candidates)}
        models = [first.names.public, first.names.candidate]
        with running(store.repository, models, admin_key=store.key, drain_s=0) as endpoint:
            store.announce(announcement(endpoint, os.getpid()))
            switches: list[tuple[float, float]] = []
            with timed_switches(switches), asked(endpoint.grpc, first, known) as answers:
                time.sleep(QUIET_S)
                began = time.monotonic()
                for number, candidate in enumerate(candidates, 1):
                    releases.release(folder, store, candidate, keep=KEEP)
                    if number == KEEP:  # from here on as many are loaded as at the end
                        before_kib = memory_kib(endpoint.process.pid)
                after_kib = memory_kib(endpoint.process.pid)
                taken_s = (time.monotonic() - began) / RELEASES
            at = time.monotonic()
            with timed_switches(switches):
                rollbacks.rollback(folder, store, first.names.public, None)
            rollback_s = time.monotonic() - at
            switch_s = switches[-1][1] - switches[-1][0]
    start_s, latency_s, faulty = answers["start_s"], answers["latency_s"], int(answers["faulty"].sum())
    during = np.zeros(len(start_s), bool)
    for first_s, last_s in switches[:-1]:
        during |= (start_s + latency_s > first_s - AROUND_S) & (start_s < last_s + AROUND_S)
    quiet_ms, switch_ms = (1000 * np.percentile(latency_s[chosen], 99) for chosen in (start_s < began, during))
    grown = after_kib / before_kib
    who = f"{CLIENTS} clients at once"
    return [
        result(
            f"requests that failed, or were answered otherwise than their release answers, in {RELEASES} releases",
            f"{faulty} of {len(start_s):,}",
            "none",
            f"{who}; {taken_s:.1f} s a release, rehearsed rollback included",
        ),
        result(
            "p99 of the requests within 50 ms of a switch, over that without releases",
            f"{switch_ms / quiet_ms:.2f}",
            "at most 2",
            f"{switch_ms:.1f} ms against {quiet_ms:.1f} ms, {who}",
        ),
        result(
            f"the server's memory after {RELEASES} releases, over that after {KEEP}",
            f"{grown:.2f}",
            "at most 1.1",
            f"{after_kib / 1024:.0f} MiB against {before_kib / 1024:.0f}, its workers included",
        ),
        result(
            "rollback: from the switch to a proven answer",
            f"{switch_s:.3f} s",
            "at most 0.1 s",
            "to the release before",
        ),
        result("rollback: the whole work", f"{rollback_s:.1f} s", "at most 2 s", "champion and ledger included"),
    ]


def released(project: Path) -> tuple[Path, Store, Candidate]:
    """A new project with its first release, without a server."""
    folder = workspace.init(workspace.project(project))
    workspace.timed(folder, "dvc", "repro", "--quiet")
    paths = {name: folder / path for name, path in params.paths(folder / "dvc.yaml").items()}
    first, store = exported(paths), Store(folder / "live")
    releases.release(folder, store, first, keep=KEEP)
    return folder, store, first


def result(what: str, figure: str, goal: str, beside: str) -> dict[str, Any]:
    return {"what": what, "figure": figure, "goal": goal, "with": beside}


def variant(base: Candidate, folder: Path, by: float) -> Candidate:
    """Another release, whose answers differ: one of the last biases is another."""
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    repository = shutil.copytree(base.repository, folder / "repository")
    blank = Names(base.manifest.name, manifest.BLANK)
    rename(repository, base.names, blank)
    path = repository / blank.network / "1" / "model.onnx"
    network = onnx.load(path)
    bias = next(tensor for tensor in network.graph.initializer if list(tensor.dims) == [10])
    bias.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(bias) + by * np.eye(10, dtype=np.float32)[3], bias.name)
    )
    path.write_bytes(network.SerializeToString(deterministic=True))
    made = manifest.describe(repository, blank.public, base.manifest.sources)
    rename(repository, blank, Names(blank.public, made.id))
    schema, rows = golden(repository, Names(blank.public, made.id))
    session = onnxruntime.InferenceSession(network.SerializeToString())
    answers = session.run(None, schema.encode(rows))
    told = {name: array.tolist() for name, array in zip(schema.outputs(), answers, strict=True)}
    verdict = {**base.verdict, "release": made.id}
    return replace(base, repository=repository, manifest=made, verdict=verdict, golden=told)


@contextmanager
def timed_switches(switches: list[tuple[float, float]]) -> Iterator[None]:
    """Note when the public name is pointed elsewhere, and when the new release has answered."""
    real, callers = switching.switch, (releases, rollbacks, switching)

    def switch(*arguments: Any) -> None:
        began = time.monotonic()
        real(*arguments)
        switches.append((began, time.monotonic()))

    for caller in callers:
        caller.switch = switch
    try:
        yield
    finally:
        for caller in callers:
            caller.switch = real


@contextmanager
def asked(address: str, base: Candidate, known: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Clients in a process of their own while the block lasts; afterwards what was answered to whom, and when."""
    context = multiprocessing.get_context("spawn")
    stop, told = context.Event(), context.Queue()
    process = context.Process(target=ask, args=(address, str(base.repository), base.names, known, stop, told))
    process.start()
    found: dict[str, np.ndarray] = {}
    try:
        yield found
    finally:
        stop.set()
        found.update(told.get())
        process.join()


def ask(address: str, repository: str, names: Names, known: dict[str, Any], stop: Any, told: Any) -> None:
    """One golden row after another by each client, until told to stop."""
    schema, rows = golden(Path(repository), names)
    row = {column: values[:1] for column, values in rows.items()}
    output = next(iter(schema.outputs()))
    expected = {release: np.array(answers[output][0], np.float32) for release, answers in known.items()}
    answers: list[tuple[float, float, bool]] = []

    def work() -> None:
        with wire.connected(address) as client:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    answer = wire.ask(client, names.public, schema, row, timeout_s=10)
                    wrong = np.abs(answer[output][0] - expected[answer["release"][0]]).max() > 1e-5
                except Exception:
                    wrong = True
                answers.append((began, time.monotonic() - began, bool(wrong)))

    clients = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    start_s, latency_s, faulty = (np.array(column) for column in zip(*answers, strict=True))
    told.put({"start_s": start_s, "latency_s": latency_s, "faulty": faulty})


def memory_kib(pid: int) -> int:
    """Resident memory that is nobody else's, of a process and all below it."""
    import psutil

    process = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (process, *process.children(recursive=True))) // 1024


if __name__ == "__main__":
    for each in main():
        print(json.dumps(each))
