"""How often the gate is wrong about two models' times, on the machine as it is and beside a load: docs/error-rates.md.

One release is served twice, and both are really asked in turn. A comparison is as many sessions as `measure` has, one
after another from a place drawn by chance, so that bursts of load stay as they were. Where the candidate shall be
slower, its times are multiplied. The gate's own function judges each comparison.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages, workspace
from benchmarks.error_rates import LEVEL, PAGE
from benchmarks.releases import result
from serving.repository import Names, rename
from stages import gate, manifest, measure, params
from stages.arrays import open_split
from stages.sandbox import Sandbox, batches, raw_rows, sandbox
from stages.schema import Schema

SESSIONS, COMPARISONS = 600, 2000  # recorded in each state of the machine; drawn from them
PAIRS = 200  # of a comparison: measure.requests
TWIN = "0" * 12  # the release's id under which it is served once more
MOST = 1.5  # gate.max_slower
TIMES = (1.0, MOST, 2.0)  # how many times as slow the candidate is
STATES = {"as it was": 0, "one busy process more": 1, "two busy processes more": 2}  # computing for half of the time
BURSTS = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0, 0.2)
    while time.monotonic() < end:
        pass
    time.sleep(random.uniform(0, 0.2))
"""
HEADINGS = (
    *("machine", "p50", "dependence", "times as slow", "refused", "not judged", "refused by the medians alone"),
    "refused, sessions drawn singly",
)


def main() -> list[dict[str, Any]]:
    """Rates of refusal where the candidate is as fast, just as slow as allowed, and twice as slow."""
    rows, results = [], []
    draw = np.random.default_rng(0)
    for machine, (ours_ms, theirs_ms) in recorded().items():
        even = theirs_ms * np.exp(np.median(logs(ours_ms, theirs_ms)))  # a recording's own ratio is then 1
        found = f"{np.median(theirs_ms):.2f} ms", f"{dependence(logs(ours_ms, even)):.2f}"
        for times in TIMES:
            runs, singly = (
                compared(ours_ms * times, even, chosen(len(even), draw)) for chosen in (in_a_row, by_chance)
            )
            refused, hidden, naive = runs.mean(0)
            rates = [f"{rate:.4f}" for rate in (refused, hidden, naive, singly.mean(0)[0])]
            cells = [machine, *found, f"{times:g}", *rates]
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
            what = f"a candidate {times:g} times as slow refused by max_slower {MOST:g}, machine {machine}"
            goal = f"at most {LEVEL:g}" if times <= MOST else "no goal"
            beside = f"{hidden:.4f} not judged; runs of {measure.SESSIONS} out of {SESSIONS} sessions"
            results.append(result(what, f"{refused:.4f}", goal, beside))
    pages.write(PAGE, [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows], "latency")
    return results


def logs(ours_ms: np.ndarray, theirs_ms: np.ndarray) -> np.ndarray:
    """The logarithm of each session's ratio."""
    return np.log(np.median(ours_ms, 1) / np.median(theirs_ms, 1))


def dependence(values: np.ndarray) -> float:
    """The correlation of each value with the next."""
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def recorded() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Milliseconds [SESSIONS, pairs] of one release that is served twice, by the state of the machine."""
    with tempfile.TemporaryDirectory() as temporary:
        changes = {"train": {"epochs": 1}}
        project = workspace.init(workspace.project(Path(temporary) / "digits", changes, preset="digits"))
        workspace.timed(project, "dvc", "repro", "--quiet", "export")
        at = {name: project / path for name, path in params.paths(project / "dvc.yaml").items()}
        schema, made = Schema.load(at["schema"]), manifest.load(at["manifest"])
        rows = open_split(at["arrays"], "test").rows[: measure.SAMPLES]
        raw = list(batches(next(raw_rows(schema, at["table"], rows, whole=True)), 1))
        twin, copied = Names(made.name, TWIN), Path(temporary) / "twin"
        shutil.copytree(at["repository"], copied)
        rename(copied, Names(made.name, made.id), twin)
        found = {}
        with sandbox(at["repository"], made, schema, lambda copy, _: [measure.add_release(copied, twin, copy)]) as box:
            other = Sandbox(box.endpoint, twin, schema)
            for machine, processes in STATES.items():
                with load(processes):
                    found[machine] = measure.in_turn(box, other, raw, PAIRS, SESSIONS)
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


def in_a_row(sessions: int, draw: np.random.Generator) -> np.ndarray:
    """int [COMPARISONS, measure.SESSIONS]: sessions that follow each other; only a few of these are disjoint."""
    return draw.integers(sessions - measure.SESSIONS + 1, size=(COMPARISONS, 1)) + np.arange(measure.SESSIONS)


def by_chance(sessions: int, draw: np.random.Generator) -> np.ndarray:
    """int [COMPARISONS, measure.SESSIONS]: each session drawn by itself: as if none depended on the one before."""
    return draw.integers(sessions, size=(COMPARISONS, measure.SESSIONS))


def compared(ours_ms: np.ndarray, theirs_ms: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """bool [COMPARISONS, 3]: whether each refuses, does not judge, and would be refused by the medians alone."""
    found = []
    for sessions in chosen:
        ours, theirs = ours_ms[sessions], theirs_ms[sessions]
        figure = gate.slower(measure.ratios(ours, theirs), MOST, LEVEL)
        refuses = not figure.note and figure.value > figure.most
        found.append((refuses, bool(figure.note), float(np.median(ours) / np.median(theirs)) > MOST))
    return np.array(found)


if __name__ == "__main__":
    main()
