"""Malformed requests to a served model, while four clients check every prediction. A seed repeats a run."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import mixed, workspace
from benchmarks.malformed import Malformed
from serving.releases import ledger
from serving.triton import wire

CLIENTS, STARTED_S, CALL_S = 4, 120.0, 20.0
TOLERANCE = 1e-4


@dataclass
class Outcome:
    """The result of a run. `grown`: threads and MiB of each process, at the start and at the end."""

    sent: int = 0
    answered: int = 0  # correct predictions for the checking clients
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    codes: collections.Counter[str] = field(default_factory=collections.Counter)  # of the malformed requests
    healed: list[str] = field(default_factory=list)  # the ledger's lines about restarts and repairs
    grown: dict[str, tuple[tuple[int, float], tuple[int, float]]] = field(default_factory=dict)


def main(seed: int = 0, minutes: float = 5.0) -> list[dict[str, Any]]:
    """Fuzz for some minutes."""
    until = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as temporary:
        outcome = run(Path(temporary) / "project", seed, lambda sent: time.monotonic() < until)
    for line in [*outcome.wrong[:5], *outcome.failed[:5], *outcome.healed[:5]]:
        print(line, flush=True)
    print(dict(outcome.codes.most_common()), flush=True)
    note = f"seed {seed}, {minutes:g} minutes, {outcome.sent:,} malformed requests, {CLIENTS} checked clients"
    goals = {
        "crashes and restarts under malformed requests": len(outcome.healed),
        "valid requests with a wrong prediction meanwhile": len(outcome.wrong),
        "valid requests that failed meanwhile": len(outcome.failed),
    }
    figures = [
        {
            "what": what,
            "figure": f"{count:,}",
            "goal": "none",
            "with": f"{note}, {outcome.answered:,} correct predictions",
        }
        for what, count in goals.items()
    ]
    for process, ((threads, mib), (threads_after, mib_after)) in outcome.grown.items():
        figure = f"{threads} and {mib:.0f} MiB, then {threads_after} and {mib_after:.0f} MiB"
        figures.append({"what": f"threads and memory of the {process}", "figure": figure, "goal": "flat", "with": note})
    return figures


def run(folder: Path, seed: int, going_on: Callable[[int], bool]) -> Outcome:
    """Release a model into a new project at `folder`, serve it, and fuzz it while `going_on(requests sent)`."""
    model = mixed.release(folder, seed)
    outcome, ended, lock = Outcome(), threading.Event(), threading.Lock()
    with serving(model) as (process, addresses):
        clients = [
            threading.Thread(target=check, args=(model, addresses, number, ended, outcome)) for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        while outcome.answered < 200 and not outcome.failed and process.poll() is None:  # to fill caches
            time.sleep(0.05)
        before = processes(process.pid)

        def fuzz(number: int) -> None:
            requests = Malformed(model, seed * 1000 + number)
            send = grpc_sender(addresses["grpc"], requests) if number % 2 else http_sender(addresses["http"], requests)
            while not ended.is_set() and process.poll() is None and going_on(outcome.sent):
                response = send()
                with lock:
                    outcome.sent += 1
                    outcome.codes[response] += 1

        fuzzers = [threading.Thread(target=fuzz, args=(number,)) for number in range(2)]
        for fuzzer in fuzzers:
            fuzzer.start()
        for fuzzer in fuzzers:
            fuzzer.join()
        ended.set()
        for client in clients:
            client.join()
        after = processes(process.pid)
        outcome.grown = {name: (before[name], after[name]) for name in before if name in after}
    events = [line for line in ledger.lines(model.store.ledger) if line["event"] != ledger.RELEASED]
    outcome.healed = [f"{line['event']}: {line.get('reason', '')}" for line in events]
    return outcome


@contextlib.contextmanager
def serving(model: mixed.Mixed) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`millrace serve` on free ports, and its addresses by protocol."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(3)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    options = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "serve", *options],
            cwd=model.folder,
            env=workspace.environment(),
            stdout=log,
            stderr=log,
        )
        try:
            until = time.monotonic() + STARTED_S
            while model.store.announced() is None:
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"`millrace serve` did not start: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.05)
            yield process, {"http": f"127.0.0.1:{ports[0]}", "grpc": f"127.0.0.1:{ports[1]}"}
        finally:
            process.terminate()
            process.wait(60)


def check(model: mixed.Mixed, addresses: dict[str, str], number: int, ended: threading.Event, outcome: Outcome) -> None:
    """A valid client: sends random rows over gRPC or HTTP, and compares each prediction with the expected one."""
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException

    random = np.random.default_rng(number)
    triton = tritonclient.grpc if number % 2 else tritonclient.http
    limit = {"client_timeout": CALL_S} if number % 2 else {}
    address = addresses["grpc" if number % 2 else "http"]
    client = triton.InferenceServerClient(address, **({} if number % 2 else {"network_timeout": CALL_S}))
    while not ended.is_set():
        first, count = int(random.integers(0, mixed.ROWS - 8)), int(random.integers(1, 8))
        chosen = slice(first, first + count)
        raw = {name: values[chosen] for name, values in model.rows.items()}
        try:
            result = client.infer(model.names.public, wire.inputs(triton, model.schema.inputs(), raw), **limit)
            answer = wire.outputs(result, ["probabilities"])
        except (InferenceServerException, OSError) as error:
            outcome.failed.append(f"a good request failed: {error!r}"[:300])
            time.sleep(0.1)
            continue
        right = set(answer["release"].tolist()) == {model.names.release}
        if right and np.abs(answer["probabilities"] - model.answers[chosen]).max() < TOLERANCE:
            outcome.answered += 1
        else:
            outcome.wrong.append(f"rows {first} to {first + count}: wrong predictions")
    client.close()


def grpc_sender(address: str, requests: Malformed) -> Callable[[], str]:
    """A function that sends a request over gRPC and returns the status."""
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address, wire.channel_options(address)))

    def send() -> str:
        try:
            stub.ModelInfer(requests.message(), timeout=CALL_S)
        except grpc.RpcError as error:
            return f"gRPC {error.code().name}"
        return "gRPC OK"

    return send


def http_sender(address: str, requests: Malformed) -> Callable[[], str]:
    """The same over HTTP, with a connection for each request."""
    host, _, port = address.partition(":")

    def send() -> str:
        try:
            with socket.create_connection((host, int(port)), CALL_S) as connection:
                connection.sendall(requests.exchange())
                connection.shutdown(socket.SHUT_WR)
                line = connection.makefile("rb").readline()
        except OSError as error:
            return f"HTTP {type(error).__name__}"
        return f"HTTP {line.split()[1].decode(errors='replace')}" if len(line.split()) > 1 else "HTTP closed"

    return send


def processes(supervisor: int) -> dict[str, tuple[int, float]]:
    """Threads and MiB of resident memory of the supervisor, the server, and the workers together."""
    import psutil

    family = [psutil.Process(supervisor), *psutil.Process(supervisor).children(recursive=True)]
    totals: dict[str, tuple[int, float]] = {}
    for process in family:
        name = process.name()
        part = "server" if name == "tritonserver" else "workers" if name.startswith("triton_python") else "supervisor"
        threads, mib = totals.get(part, (0, 0.0))
        totals[part] = (threads + process.num_threads(), mib + process.memory_info().rss / 2**20)
    return totals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5.0)
    for each in main(**vars(parser.parse_args())):
        print(json.dumps(each))
