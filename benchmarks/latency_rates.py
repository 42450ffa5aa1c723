"""How often the gate is wrong about two models' times, on the machine as it is and beside a load: docs/error-rates.md.

Two servers of one release are really asked in turn. A comparison is as many pairs as `measure` asks for, one
after another from a place drawn by chance, so that bursts of load stay as they were. Where the candidate shall be
slower, its times are multiplied. The gate's own function judges each comparison.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages, workspace
from benchmarks.error_rates import LEVEL, PAGE, rate
from benchmarks.releases import result
from serving.repository import Names
from stages import gate, manifest, measure, params, shares
from stages.arrays import open_split
from stages.sandbox import batches, raw_rows, sandbox
from stages.schema import Schema

PAIRS, RECORDED, COMPARISONS = 200, 3000, 2000
MOST = 1.5  # gate.max_slower
TIMES = (1.0, MOST, 2.0)  # how many times as slow the candidate is
SURE = 0.01
BUSY = 4  # processes that compute now and then, each for up to 0.2 s
BURSTS = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0, 0.2)
    while time.monotonic() < end:
        pass
    time.sleep(random.uniform(0, 0.2))
"""
HEADINGS = ("machine", "times as slow", "comparisons", "refused", "not judged", "refused by the medians alone")


def main() -> list[dict[str, Any]]:
    """Rates of refusal where the candidate is as fast, just as slow as allowed, and twice as slow."""
    rows, results = [], []
    draw = np.random.default_rng(0)
    for machine, (ours_ms, theirs_ms) in recorded().items():
        for times in TIMES:
            refused, hidden, naive = compared(ours_ms * times, theirs_ms, draw)
            cells = [machine, f"{times:g}", f"{COMPARISONS:,}", rate(refused), f"{hidden.mean():.4f}"]
            rows.append("| " + " | ".join([*cells, f"{naive.mean():.4f}"]) + " |")
            print(rows[-1], flush=True)
            if times <= MOST:
                low = shares.interval(refused, SURE)[0]
                what = f"a candidate {times:g} times as slow refused by max_slower {MOST:g}, machine: {machine}"
                beside = f"{COMPARISONS:,} comparisons; 99 % lower bound {low:.4f}"
                results.append(result(what, f"{refused.mean():.4f}", f"lower bound at most {LEVEL:g}", beside))
    pages.write(PAGE, [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows], "latency")
    return results


def recorded() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Milliseconds [RECORDED] of two servers of one release, asked in turn, by the state of the machine."""
    with tempfile.TemporaryDirectory() as temporary:
        changes = {"train": {"epochs": 1}}
        project = workspace.init(workspace.project(Path(temporary) / "digits", changes, preset="digits"))
        workspace.timed(project, "dvc", "repro", "--quiet", "export")
        at = {name: project / path for name, path in params.paths(project / "dvc.yaml").items()}
        schema, made = Schema.load(at["schema"]), manifest.load(at["manifest"])
        rows = open_split(at["arrays"], "test").rows[: measure.SAMPLES]
        raw = list(batches(next(raw_rows(schema, at["table"], rows, whole=True)), 1))
        found = {}
        with sandbox(at["repository"], made, schema) as box, sandbox(at["repository"], made, schema) as other:
            assert box.names == other.names == Names(made.name, made.id)
            for machine, processes in (("as it is", 0), ("busy", BUSY)):
                with load(processes):
                    found[machine] = measure.in_turn(box, other, raw, RECORDED)
        return found


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute in bursts while the block lasts."""
    running = [subprocess.Popen([sys.executable, "-c", BURSTS]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def compared(
    ours_ms: np.ndarray, theirs_ms: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each comparison: whether it refuses, whether it does not judge, and whether the medians alone would refuse."""
    found = []
    for first in draw.integers(len(ours_ms) - PAIRS + 1, size=COMPARISONS):
        ours, theirs = ours_ms[first : first + PAIRS], theirs_ms[first : first + PAIRS]
        figure = gate.slower(measure.ratios(ours, theirs), MOST, LEVEL)
        refuses = not figure.note and figure.value > figure.most
        found.append((refuses, bool(figure.note), float(np.median(ours) / np.median(theirs)) > MOST))
    refused, hidden, naive = np.array(found).T
    return refused, hidden, naive


if __name__ == "__main__":
    main()
