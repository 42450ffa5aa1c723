"""The cost of a canary for callers of the live release: latency and throughput at 5 %, relative to none."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.releases import released, result, variant
from serving.releases import canary
from serving.releases.candidate import Candidate
from serving.releases.trial import Trial
from serving.triton import wire
from serving.triton.admin import administered, announcement
from serving.triton.launcher import running
from serving.triton.repository import golden

CLIENTS, SHARE = 8, 0.05
ROUNDS, REQUESTS, SECONDS = 5, 400, 3.0
TRIAL = Trial(
    share=SHARE,
    shadow=False,
    requests=10**9,
    minutes=60,
    late_s=1,
    max_failures=0,
    max_latency_ratio=100,
    max_disagreement=1,
)


def main() -> list[dict[str, Any]]:
    """The median latency of one connection and the throughput of several, with and without a canary in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        _, store, live = released(Path(temporary) / "project")
        new = variant(live, Path(temporary) / "new", 0.05)
        p50_ms: dict[bool, list[float]] = {False: [], True: []}
        rate: dict[bool, list[float]] = {False: [], True: []}
        models = [live.names.public, live.names.candidate]
        with running(store.repository, models, admin_key=store.key, drain_s=0) as endpoint:
            store.announce(announcement(endpoint, os.getpid()))
            with store.writing("a benchmark"), administered(endpoint.grpc, endpoint.admin_key) as admin:
                store.add(new.repository, new.manifest, {"golden.json": json.dumps(dict(new.golden))})
                admin.load(new.names.candidate)
                for canary_runs in [False, True] * ROUNDS:
                    if canary_runs:
                        canary.begin(store, admin, live.names, new.names, TRIAL)
                    else:
                        canary.end(store, admin, new.names)
                    p50_ms[canary_runs].append(median_ms(endpoint.grpc, live))
                    rate[canary_runs].append(throughput(endpoint.grpc, live))
    with_ms, without_ms = min(p50_ms[True]), min(p50_ms[False])
    most, least = max(rate[False]), max(rate[True])
    note = f"{SHARE:.0%} of the requests to both releases"
    return [
        result(
            "p50 of one connection during a canary, relative to none",
            f"{with_ms / without_ms:.2f}",
            "no goal",
            f"{with_ms:.2f} ms against {without_ms:.2f} ms; {note}",
        ),
        result(
            f"throughput of {CLIENTS} connections during a canary, relative to none",
            f"{least / most:.2f}",
            "no goal",
            f"{least:,.0f} requests/s against {most:,.0f}; {note}",
        ),
    ]


def median_ms(address: str, base: Candidate) -> float:
    """The median latency of requests of one row, after a few for warm-up."""
    schema, rows = golden(base.repository, base.names)
    row = {column: values[:1] for column, values in rows.items()}
    taken = []
    with wire.connected(address) as client:
        for _ in range(REQUESTS + 20):
            began = time.perf_counter()
            wire.ask(client, base.names.public, schema, row)
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken[20:])


def throughput(address: str, base: Candidate) -> float:
    """Requests of one row per second."""
    schema, rows = golden(base.repository, base.names)
    row = {column: values[:1] for column, values in rows.items()}
    until, counts = time.monotonic() + SECONDS, []

    def ask() -> None:
        count = 0
        with wire.connected(address) as client:
            while time.monotonic() < until:
                wire.ask(client, base.names.public, schema, row)
                count += 1
        counts.append(count)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sum(counts) / SECONDS


if __name__ == "__main__":
    for each in main():
        print(json.dumps(each))
