"""How fast the exported model answers on this host. The one output that differs from clone to clone."""

from __future__ import annotations

import stages.interrupts  # noqa: F401

import itertools
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serving.repository import Names, schema_of
from stages import command, controls, manifest, params
from stages.arrays import open_split
from stages.cached import remedy
from stages.host import fingerprint
from stages.sandbox import Raw, Sandbox, batches, raw_rows, sandbox
from stages.schema import Schema

SAMPLES = 64  # different ones, sent in turn
WARM_UP = 20  # requests that are not timed
BLOCK = 10  # pairs of requests whose medians are compared
RESTORE = "`dvc checkout --force champion/repository.dvc` or `dvc pull champion/repository.dvc` brings it back"
AFTERWARDS = "`dvc repro --force --single-item measure`"
SLOW_REQUESTS, SLOW_MS = 3, 1000.0  # of the slow control: at most so many, and none once so much time is over


def main(
    repository: Path,
    described: Path,
    champion: Path,
    challenge: Path,
    arrays: Path,
    schema: Path,
    source: Path,
    times: Path,
) -> None:
    """Time single samples one after another, then from several clients at once, and the control that is too slow.

    A champion that can be asked is timed beside the candidate, request by request.
    """
    listed = params.load("measure")
    said, slow = listed.measure, controls.slow(listed.gate.p99_ms)
    fitted, made = Schema.load(schema), manifest.load(described)
    some = next(raw_rows(fitted, source, open_split(arrays, "test").rows[:SAMPLES], whole=True))
    raw = list(batches(some, 1))
    few = int(min(SLOW_REQUESTS, 1 + SLOW_MS // slow.delay_ms))
    with sandbox(repository, made, fitted, partial(controls.add, [slow])) as box:
        latency = latencies_ms(box, raw, said.requests)
        rate = throughput_per_s(box, raw, said.requests, said.clients)
        slowly = latencies_ms(box, raw, few, warm_up=0, model=box.names.beside(slow.name))
        asked = json.loads((challenge / "challenge.json").read_text(encoding="utf-8"))["state"] == "answers"
        other = beside_champion(box, champion, raw, said.requests) if asked else None
    result = {
        "release": made.id,
        "host": fingerprint(),
        "one_client": {"requests": said.requests, **percentiles(latency)},
        "together": {"clients": said.clients, "requests": said.requests, "requests_per_s": round(rate, 1)},
        "bytes": total_bytes(repository),
        "champion": other,
        "slow": slow.described() | {"requests": few, "evidence": {"p99_ms": percentiles(slowly)["p99_ms"]}},
    }
    with command.replacing(times) as whole:
        whole.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    one = result["one_client"]
    print(f"one client: p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms; {said.clients} clients: {rate:,.0f} requests/s")


def latencies_ms(
    box: Sandbox, raw: Sequence[Raw], requests: int, warm_up: int = WARM_UP, model: str = ""
) -> np.ndarray:
    """[requests], each of one sample, one after another."""
    taken = np.empty(requests)
    with box.client() as client:
        for one in itertools.islice(itertools.cycle(raw), warm_up):
            box.ask(client, one, model)
        for i, one in zip(range(requests), itertools.cycle(raw), strict=False):
            began = time.perf_counter()
            box.ask(client, one, model)
            taken[i] = (time.perf_counter() - began) * 1000
    return taken


def beside_champion(box: Sandbox, champion: Path, raw: Sequence[Raw], requests: int) -> dict[str, Any]:
    """Both models' p50 in milliseconds, how many times as long as the champion's, by block; and its size.

    `lost`: why it cannot be asked any more.
    """
    made, repository = manifest.load(champion), champion.parent / "repository"
    if faults := manifest.faults(repository, made):
        how = f"{remedy(repository, RESTORE)}; then {AFTERWARDS}"
        return {"release": made.id, "lost": f"{made.id} cannot be asked any more ({faults[0]}): {how}"}
    with sandbox(repository, made, schema_of(repository, Names(made.name, made.id))) as other:
        ours_ms, theirs_ms = in_turn(box, other, raw, requests)
    return {
        "release": made.id,
        "bytes": total_bytes(repository),
        "p50_ms": round(float(np.median(theirs_ms)), 3),
        "candidate_p50_ms": round(float(np.median(ours_ms)), 3),
        "ratios": ratios(ours_ms, theirs_ms),
    }


def in_turn(box: Sandbox, other: Sandbox, raw: Sequence[Raw], requests: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds [requests] of each model, asked in turn, so that whatever else the host does slows both.

    Each goes first in every other pair, since the second finds the sample in the caches.
    """
    taken_ms = np.empty((WARM_UP + requests, 2))
    with box.client() as ours, other.client() as theirs:
        both = ((0, box, ours), (1, other, theirs))
        for number, one in zip(range(len(taken_ms)), itertools.cycle(raw), strict=False):
            for which, asked, client in both if number % 2 else both[::-1]:
                began = time.perf_counter()
                asked.ask(client, one)
                taken_ms[number, which] = (time.perf_counter() - began) * 1000
    return taken_ms[WARM_UP:, 0], taken_ms[WARM_UP:, 1]


def ratios(ours_ms: np.ndarray, theirs_ms: np.ndarray) -> list[float]:
    """The ratio of medians in each block of pairs: a burst of load is in one block, and slows both models there."""
    ends = range(BLOCK, len(ours_ms) + 1, BLOCK)
    medians = ([float(np.median(each[end - BLOCK : end])) for end in ends] for each in (ours_ms, theirs_ms))
    return [round(ours / theirs, 4) for ours, theirs in zip(*medians, strict=True)]


def total_bytes(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def throughput_per_s(box: Sandbox, raw: Sequence[Raw], requests: int, clients: int) -> float:
    """Requests a second, of one sample each, from `clients` that each wait for their answers."""

    def work(count: int) -> None:
        with box.client() as client:
            for one in itertools.islice(itertools.cycle(raw), count):
                box.ask(client, one)

    shares = [len(range(i, requests, clients)) for i in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        list(pool.map(work, shares))
        return requests / (time.perf_counter() - began)


def percentiles(latency_ms: np.ndarray) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {f"p{p}_ms": round(float(np.percentile(latency_ms, p)), 3) for p in (50, 95, 99)}


if __name__ == "__main__":
    command.run(main)
