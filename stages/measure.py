"""How fast the exported model answers on this host. The one output that differs from clone to clone."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serving.triton import manifest
from serving.triton.names import Names
from serving.triton.repository import schema_of
from serving.triton.sandbox import Raw, Sandbox, batches, raw_rows, sandbox
from stages.core import command
from stages.core.cached import remedy
from stages.core.host import fingerprint
from stages.gating import controls
from stages.gating.controls import Control
from stages.schema import Schema
from stages.settings import params
from stages.tables.arrays import open_split

SAMPLES = 64  # different ones, sent in turn
WARM_UP = 20  # requests that are not timed
SESSIONS = 20  # in which a champion is timed beside the candidate, each with connections of its own
FIRST = 2  # pairs of requests of each session that are not timed
PAUSE_S = 0.05  # between them, so that they are not all in one burst of load
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

    A champion that can still answer is served beside the candidate, by the same server, and timed in turn with it.
    """
    listed = params.load("measure")
    said, slow = listed.measure, controls.slow(listed.gate.p99_ms)
    fitted, made = Schema.load(schema), manifest.load(described)
    some = next(raw_rows(fitted, source, open_split(arrays, "test").rows[:SAMPLES], whole=True))
    raw = list(batches(some, 1))
    few = int(min(SLOW_REQUESTS, 1 + SLOW_MS // slow.delay_ms))
    answers = json.loads((challenge / "challenge.json").read_text(encoding="utf-8"))["state"] == "answers"
    rival = Rival.of(champion) if answers else None
    with sandbox(repository, made, fitted, partial(add, slow, rival)) as box:
        latency = latencies_ms(box, raw, said.requests)
        rate = throughput_per_s(box, raw, said.requests, said.clients)
        slowly = latencies_ms(box, raw, few, warm_up=0, model=box.names.added(slow.name))
        other = beside_champion(box, rival, raw, said.requests) if rival else None
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


@dataclass(frozen=True)
class Rival:
    """The champion. `lost`: why it cannot be asked any more."""

    names: Names
    repository: Path
    lost: str = ""

    @classmethod
    def of(cls, champion: Path) -> Rival:
        """The one that a manifest pins."""
        made, repository = manifest.load(champion), champion.parent / "repository"
        names = Names(made.name, made.id)
        if not (faults := manifest.faults(repository, made)):
            return cls(names, repository)
        how = f"{remedy(repository, RESTORE)}; then {AFTERWARDS}"
        return cls(names, repository, f"{made.id} cannot be asked any more ({faults[0]}): {how}")


def add(slow: Control, rival: Rival | None, copy: Path, names: Names) -> list[str]:
    """Put the slow control and the champion into a repository, beside the candidate; their ensembles."""
    models = controls.add([slow], copy, names)
    if rival and not rival.lost:
        models.append(add_release(rival.repository, rival.names, copy))
    return models


def add_release(source: Path, names: Names, copy: Path) -> str:
    """Put another release's parts into a repository; its ensemble."""
    for part in (names.encode, names.network, names.candidate):
        shutil.copytree(source / part, copy / part)
    return names.candidate


def beside_champion(box: Sandbox, rival: Rival, raw: Sequence[Raw], requests: int) -> dict[str, Any]:
    """Both models' p50 in milliseconds, how many times as long as the champion's, by session; and its size."""
    if rival.lost:
        return {"release": rival.names.release, "lost": rival.lost}
    other = Sandbox(box.endpoint, rival.names, schema_of(rival.repository, rival.names))
    ours_ms, theirs_ms = in_turn(box, other, raw, requests)
    return {
        "release": rival.names.release,
        "bytes": total_bytes(rival.repository),
        "p50_ms": round(float(np.median(theirs_ms)), 3),
        "candidate_p50_ms": round(float(np.median(ours_ms)), 3),
        "ratios": ratios(ours_ms, theirs_ms),
    }


def in_turn(
    box: Sandbox, other: Sandbox, raw: Sequence[Raw], requests: int, sessions: int = SESSIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds [sessions, pairs] of each release, of `requests` in all of SESSIONS, by its own ensemble.

    Which of a pair goes first is drawn: whatever else the host does, it is as likely to slow the one as the other.
    """
    pairs = max(1, requests // SESSIONS)
    taken_ms = np.empty((sessions, FIRST + pairs, 2))
    ours_first = np.random.default_rng(0).random(taken_ms.shape[:2]) < 0.5
    samples = itertools.cycle(raw)
    for session in range(sessions):
        with box.client() as ours, other.client() as theirs:
            both = ((0, box, ours), (1, other, theirs))
            for number, first in enumerate(ours_first[session]):
                one = next(samples)
                for which, release, client in both if first else both[::-1]:
                    began = time.perf_counter()
                    release.ask(client, one, release.names.candidate)
                    taken_ms[session, number, which] = (time.perf_counter() - began) * 1000
        time.sleep(PAUSE_S)
    return taken_ms[:, FIRST:, 0], taken_ms[:, FIRST:, 1]


def ratios(ours_ms: np.ndarray, theirs_ms: np.ndarray) -> list[float]:
    """The ratio of medians in each session, of milliseconds [sessions, pairs]."""
    return [round(float(ratio), 4) for ratio in np.median(ours_ms, 1) / np.median(theirs_ms, 1)]


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
