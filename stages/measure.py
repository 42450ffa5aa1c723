"""Measure how fast the exported model answers on this host. The only output that differs between clones."""

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

from serving.triton import manifest as manifests
from serving.triton.names import Names
from serving.triton.repository import schema_of
from serving.triton.sandbox import Raw, Sandbox, batches, raw_rows, sandbox
from stages.core import command
from stages.core.dvc_files import remedy
from stages.core.files import replacing
from stages.core.host import fingerprint
from stages.gating import controls
from stages.gating.controls import Control
from stages.schema import Schema
from stages.settings import params, section, sections
from stages.settings.gate import Gate
from stages.tables.arrays import open_split

SAMPLES = 64  # distinct samples, sent in turn
WARM_UP = 20  # requests that are not timed
SESSIONS = 20  # in which candidate and champion are timed in turn, each session with new connections
FIRST = 2  # pairs of requests at the start of each session that are not timed
PAUSE_S = 0.05  # between sessions, so that one burst of load does not hit them all
RESTORE = "`dvc checkout --force champion/repository.dvc` or `dvc pull champion/repository.dvc` brings it back"
AFTERWARDS = "`dvc repro --force --single-item measure`"
SLOW_REQUESTS, SLOW_MS = 3, 1000.0  # to the slow control: the most requests, and the time after which none follows


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    measure: sections.Measure
    gate: Gate


def main(
    repository: Path,
    manifest: Path,
    champion: Path,
    challenge: Path,
    arrays: Path,
    schema: Path,
    table: Path,
    times: Path,
) -> None:
    """Time single samples from one client, then from several at once, and the control that is too slow.

    A champion that can still answer is served by the same server and timed in turn with the candidate.
    """
    parameters = params.load("measure", Parameters)
    settings, slow = parameters.measure, controls.slow(parameters.gate.p99_ms)
    fitted, made = Schema.load(schema), manifests.load(manifest)
    samples = next(raw_rows(fitted, table, open_split(arrays, "test").rows[:SAMPLES], whole=True))
    raw = list(batches(samples, 1))
    few = int(min(SLOW_REQUESTS, 1 + SLOW_MS // slow.delay_ms))
    answers = json.loads((challenge / "challenge.json").read_text(encoding="utf-8"))["state"] == "answers"
    live = Champion.load(champion) if answers else None
    with sandbox(repository, made, fitted, partial(add, slow, live)) as box:
        latency = latencies_ms(box, raw, settings.requests)
        rate = throughput_per_s(box, raw, settings.requests, settings.clients)
        slowly = latencies_ms(box, raw, few, warm_up=0, model=box.names.added(slow.name))
        compared = compare(box, live, raw, settings.requests) if live else None
    result = {
        "release": made.id,
        "host": fingerprint(),
        "one_client": {"requests": settings.requests, **percentiles(latency)},
        "together": {"clients": settings.clients, "requests": settings.requests, "requests_per_s": round(rate, 1)},
        "bytes": total_bytes(repository),
        "champion": compared,
        "slow": slow.described() | {"requests": few, "evidence": {"p99_ms": percentiles(slowly)["p99_ms"]}},
    }
    with replacing(times) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    p50, p99 = (percentiles(latency)[name] for name in ("p50_ms", "p99_ms"))
    print(f"one client: p50 {p50} ms, p99 {p99} ms; {settings.clients} clients: {rate:,.0f} requests/s")


def latencies_ms(
    box: Sandbox, raw: Sequence[Raw], requests: int, warm_up: int = WARM_UP, model: str = ""
) -> np.ndarray:
    """Latencies [requests] of one sample each, one request after another."""
    taken = np.empty(requests)
    with box.client() as client:
        for sample in itertools.islice(itertools.cycle(raw), warm_up):
            box.ask(client, sample, model)
        for i, sample in zip(range(requests), itertools.cycle(raw), strict=False):
            began = time.perf_counter()
            box.ask(client, sample, model)
            taken[i] = (time.perf_counter() - began) * 1000
    return taken


@dataclass(frozen=True)
class Champion:
    """The released model. `lost`: why it can no longer be served; empty if it can."""

    names: Names
    repository: Path
    lost: str = ""

    @classmethod
    def load(cls, released: Path) -> Champion:
        """The model of a manifest."""
        made, repository = manifests.load(released), released.parent / "repository"
        names = Names(made.name, made.id)
        if not (faults := manifests.faults(repository, made)):
            return cls(names, repository)
        how = f"{remedy(repository, RESTORE)}; then {AFTERWARDS}"
        return cls(names, repository, f"{made.id} can no longer be served ({faults[0]}): {how}")


def add(slow: Control, champion: Champion | None, copy: Path, names: Names) -> list[str]:
    """Add the slow control and the champion to the candidate's repository; return the names of their ensembles."""
    models = controls.add([slow], copy, names)
    if champion and not champion.lost:
        models.append(add_release(champion.repository, champion.names, copy))
    return models


def add_release(source: Path, names: Names, copy: Path) -> str:
    """Copy another release's models into a repository; return the name of its ensemble."""
    for part in (names.encode, names.network, names.candidate):
        shutil.copytree(source / part, copy / part)
    return names.candidate


def compare(box: Sandbox, champion: Champion, raw: Sequence[Raw], requests: int) -> dict[str, Any]:
    """The p50 of both models in milliseconds, the ratios of their medians by session, and the champion's size."""
    if champion.lost:
        return {"release": champion.names.release, "lost": champion.lost}
    other = Sandbox(box.endpoint, champion.names, schema_of(champion.repository, champion.names))
    ours_ms, theirs_ms = in_turn(box, other, raw, requests)
    return {
        "release": champion.names.release,
        "bytes": total_bytes(champion.repository),
        "p50_ms": round(float(np.median(theirs_ms)), 3),
        "candidate_p50_ms": round(float(np.median(ours_ms)), 3),
        "ratios": ratios(ours_ms, theirs_ms),
    }


def in_turn(
    box: Sandbox, other: Sandbox, raw: Sequence[Raw], requests: int, sessions: int = SESSIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Latencies in milliseconds [sessions, pairs] of two releases by their ensembles; `requests` in SESSIONS sessions.

    A draw decides which release of a pair goes first, so that other load on the host slows either with equal chance.
    """
    pairs = max(1, requests // SESSIONS)
    taken_ms = np.empty((sessions, FIRST + pairs, 2))
    ours_first = np.random.default_rng(0).random(taken_ms.shape[:2]) < 0.5
    samples = itertools.cycle(raw)
    for session in range(sessions):
        with box.client() as ours, other.client() as theirs:
            both = ((0, box, ours), (1, other, theirs))
            for number, first in enumerate(ours_first[session]):
                sample = next(samples)
                for which, release, client in both if first else both[::-1]:
                    began = time.perf_counter()
                    release.ask(client, sample, release.names.candidate)
                    taken_ms[session, number, which] = (time.perf_counter() - began) * 1000
        time.sleep(PAUSE_S)
    return taken_ms[:, FIRST:, 0], taken_ms[:, FIRST:, 1]


def ratios(ours_ms: np.ndarray, theirs_ms: np.ndarray) -> list[float]:
    """The ratio of medians in each session, of milliseconds [sessions, pairs]."""
    return [round(float(ratio), 4) for ratio in np.median(ours_ms, 1) / np.median(theirs_ms, 1)]


def total_bytes(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def throughput_per_s(box: Sandbox, raw: Sequence[Raw], requests: int, clients: int) -> float:
    """Requests per second, of one sample each, from `clients` that each wait for their answers."""

    def work(count: int) -> None:
        with box.client() as client:
            for sample in itertools.islice(itertools.cycle(raw), count):
                box.ask(client, sample)

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
