"""How often the gate is wrong about latencies, with and without load. The table goes to docs/error-rates.md.

One release is served twice, and requests go to both in turn. A comparison is as many consecutive sessions as `measure`
has, starting at random, so that bursts of load stay together. To make the candidate slower, its latencies are
multiplied. The gate's own function judges each comparison.
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
from serving.triton import manifest
from serving.triton.names import Names, rename
from serving.triton.sandbox import Sandbox, batches, raw_rows, sandbox
from stages import gate, measure
from stages.schema import Schema
from stages.settings import params
from stages.tables.arrays import open_split

SESSIONS, COMPARISONS = 600, 2000  # recorded for each state of the machine; comparisons drawn from them
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
    *("machine", "p50", "autocorrelation", "slowdown", "refused", "not judged", "refused by the medians alone"),
    "refused, sessions drawn one by one",
)


def main() -> list[dict[str, Any]]:
    """The rates of refusal if the candidate is as fast, exactly as slow as allowed, and twice as slow."""
    rows, results = [], []
    draw = np.random.default_rng(0)
    for machine, (ours_ms, theirs_ms) in recorded().items():
        even = theirs_ms * np.exp(np.median(logs(ours_ms, theirs_ms)))  # so that the recording's own ratio is 1
        columns = f"{np.median(theirs_ms):.2f} ms", f"{dependence(logs(ours_ms, even)):.2f}"
        for times in TIMES:
            consecutive, single = (
                compared(ours_ms * times, even, sessions(len(even), draw)) for sessions in (in_a_row, one_by_one)
            )
            refused, not_judged, by_medians = consecutive.mean(0)
            rates = [f"{rate:.4f}" for rate in (refused, not_judged, by_medians, single.mean(0)[0])]
            cells = [machine, *columns, f"{times:g}", *rates]
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
            what = f"a candidate {times:g} times as slow refused by max_slower {MOST:g}, machine {machine}"
            goal = f"at most {LEVEL:g}" if times <= MOST else "no goal"
            note = f"{not_judged:.4f} not judged; runs of {measure.SESSIONS} out of {SESSIONS} sessions"
            results.append(result(what, f"{refused:.4f}", goal, note))
    pages.write(PAGE, [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows], "latency")
    return results


def logs(ours_ms: np.ndarray, theirs_ms: np.ndarray) -> np.ndarray:
    """The logarithm of each session's ratio."""
    return np.log(np.median(ours_ms, 1) / np.median(theirs_ms, 1))


def dependence(values: np.ndarray) -> float:
    """The correlation of each value with the next."""
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def recorded() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Latencies in ms [SESSIONS, pairs] of a release that is served twice, for each state of the machine."""
    with tempfile.TemporaryDirectory() as temporary:
        changes = {"train": {"epochs": 1}}
        project = workspace.init(workspace.project(Path(temporary) / "digits", changes, preset="digits"))
        workspace.timed(project, "dvc", "repro", "--quiet", "export")
        paths = {name: project / path for name, path in params.paths(project / "dvc.yaml").items()}
        schema, made = Schema.load(paths["schema"]), manifest.load(paths["manifest"])
        rows = open_split(paths["arrays"], "test").rows[: measure.SAMPLES]
        raw = list(batches(next(raw_rows(schema, paths["table"], rows, whole=True)), 1))
        twin, copied = Names(made.name, TWIN), Path(temporary) / "twin"
        shutil.copytree(paths["repository"], copied)
        rename(copied, Names(made.name, made.id), twin)
        recordings = {}
        with sandbox(
            paths["repository"], made, schema, lambda copy, _: [measure.add_release(copied, twin, copy)]
        ) as box:
            other = Sandbox(box.endpoint, twin, schema)
            for machine, processes in STATES.items():
                with load(processes):
                    recordings[machine] = measure.in_turn(box, other, raw, PAIRS, SESSIONS)
        return recordings


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Run processes that compute in bursts for the duration of the block."""
    running = [subprocess.Popen([sys.executable, "-c", BURSTS]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def in_a_row(sessions: int, draw: np.random.Generator) -> np.ndarray:
    """Int [COMPARISONS, measure.SESSIONS]: consecutive sessions; only a few of these runs are disjoint."""
    return draw.integers(sessions - measure.SESSIONS + 1, size=(COMPARISONS, 1)) + np.arange(measure.SESSIONS)


def one_by_one(sessions: int, draw: np.random.Generator) -> np.ndarray:
    """Int [COMPARISONS, measure.SESSIONS]: each session drawn independently, as if sessions were independent."""
    return draw.integers(sessions, size=(COMPARISONS, measure.SESSIONS))


def compared(ours_ms: np.ndarray, theirs_ms: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Bool [COMPARISONS, 3]: refused, not judged, and refused by the medians alone."""
    outcomes = []
    for sessions in chosen:
        ours, theirs = ours_ms[sessions], theirs_ms[sessions]
        figure = gate.slower(measure.ratios(ours, theirs), MOST, LEVEL)
        refuses = not figure.note and figure.value > figure.most
        outcomes.append((refuses, bool(figure.note), float(np.median(ours) / np.median(theirs)) > MOST))
    return np.array(outcomes)


if __name__ == "__main__":
    main()
