"""A hundred consecutive releases while eight clients send requests, then a rollback: what callers notice."""

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
QUIET_S = 20.0  # with the same clients and without a release
AROUND_S = 0.05  # before and after a switch, requests count as during it


def main() -> list[dict[str, Any]]:
    """Errors, latencies and memory. Every prediction is compared with those of the release that it names."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, store, first = released(Path(temporary) / "project")
        candidates = [variant(first, Path(temporary) / str(number), 0.05 * number) for number in range(1, RELEASES + 1)]
        known = {each.manifest.id: each.golden for each in (first, *candidates)}
        models = [first.names.public, first.names.candidate]
        with running(store.repository, models, admin_key=store.key, drain_s=0) as endpoint:
            store.announce(announcement(endpoint, os.getpid()))
            switches: list[tuple[float, float]] = []
            with timed_switches(switches), asking_clients(endpoint.grpc, first, known) as answers:
                time.sleep(QUIET_S)
                began = time.monotonic()
                for number, candidate in enumerate(candidates, 1):
                    releases.release(folder, store, candidate, keep=KEEP)
                    if number == KEEP:  # from now on as many releases are loaded as at the end
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
    growth = after_kib / before_kib
    clients_text = f"{CLIENTS} clients at once"
    return [
        result(
            f"requests that failed or got a prediction of another release than the one named, in {RELEASES} releases",
            f"{faulty} of {len(start_s):,}",
            "none",
            f"{clients_text}; {taken_s:.1f} s per release, including the trial rollback",
        ),
        result(
            "p99 of requests within 50 ms of a switch, relative to none",
            f"{switch_ms / quiet_ms:.2f}",
            "at most 2",
            f"{switch_ms:.1f} ms against {quiet_ms:.1f} ms, {clients_text}",
        ),
        result(
            f"the server's memory after {RELEASES} releases, relative to {KEEP}",
            f"{growth:.2f}",
            "at most 1.1",
            f"{after_kib / 1024:.0f} MiB against {before_kib / 1024:.0f}, including its workers",
        ),
        result(
            "rollback: from the switch to a verified prediction",
            f"{switch_s:.3f} s",
            "at most 0.1 s",
            "to the previous release",
        ),
        result("rollback: the whole command", f"{rollback_s:.1f} s", "at most 2 s", "including champion and ledger"),
    ]


def released(project: Path) -> tuple[Path, Store, Candidate]:
    """A new project with a first release, without a server."""
    folder = workspace.init(workspace.project(project))
    workspace.timed(folder, "dvc", "repro", "--quiet")
    paths = {name: folder / path for name, path in params.paths(folder / "dvc.yaml").items()}
    first, store = exported(paths), Store(folder / "live")
    releases.release(folder, store, first, keep=KEEP)
    return folder, store, first


def result(what: str, figure: str, goal: str, note: str) -> dict[str, Any]:
    """A row of docs/figures.md."""
    return {"what": what, "figure": figure, "goal": goal, "with": note}


def variant(base: Candidate, folder: Path, by: float) -> Candidate:
    """Another release with different predictions: one of the last biases is changed."""
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
    predictions = {name: array.tolist() for name, array in zip(schema.outputs(), answers, strict=True)}
    verdict = {**base.verdict, "release": made.id}
    return replace(base, repository=repository, manifest=made, verdict=verdict, golden=predictions)


@contextmanager
def timed_switches(switches: list[tuple[float, float]]) -> Iterator[None]:
    """Record when the public name is switched, and when the new release has answered."""
    original, callers = switching.switch, (releases, rollbacks, switching)

    def switch(*arguments: Any) -> None:
        began = time.monotonic()
        original(*arguments)
        switches.append((began, time.monotonic()))

    for caller in callers:
        caller.switch = switch
    try:
        yield
    finally:
        for caller in callers:
            caller.switch = original


@contextmanager
def asking_clients(address: str, base: Candidate, known: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Run clients in another process for the duration of the block; then return their latencies and errors."""
    context = multiprocessing.get_context("spawn")
    stop, queue = context.Event(), context.Queue()
    process = context.Process(target=run_clients, args=(address, str(base.repository), base.names, known, stop, queue))
    process.start()
    collected: dict[str, np.ndarray] = {}
    try:
        yield collected
    finally:
        stop.set()
        collected.update(queue.get())
        process.join()


def run_clients(address: str, repository: str, names: Names, known: dict[str, Any], stop: Any, queue: Any) -> None:
    """Let each client send a golden row again and again until `stop` is set."""
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
    queue.put({"start_s": start_s, "latency_s": latency_s, "faulty": faulty})


def memory_kib(pid: int) -> int:
    """Unshared resident memory of a process and its descendants."""
    import psutil

    process = psutil.Process(pid)
    return sum(member.memory_full_info().uss for member in (process, *process.children(recursive=True))) // 1024


if __name__ == "__main__":
    for each in main():
        print(json.dumps(each))
