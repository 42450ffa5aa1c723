"""How often the gate is wrong about two models, and which differences it finds. The table goes to docs/error-rates.md.

Two networks, of other seeds, really answer a test split through Triton. Comparisons are drawn from these answers: n
samples with replacement, and of each the two answers given to either side by a coin, so that neither is better. Where
one shall be worse by a known amount, as many of its right answers become wrong ones, or noise is added of the variance
that costs so much. Each comparison is then put before the gate's own functions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages, workspace
from benchmarks.releases import result
from stages import gate
from stages.gating import metrics
from stages.gating.verdict import PASS, Estimate, Evidence, Policy, judge
from stages.schema import Schema
from stages.settings import params
from stages.stats import proportions
from stages.tables.arrays import open_split

PAGE = workspace.ROOT / "docs" / "error-rates.md"
LEVEL = 0.05
SURE = 0.01  # how often a rate that is not above the level may be said to be
POWER = 0.8
WORKERS, CHUNK = 2, 50
SEARCHED = 400  # comparisons at each step of the search for what is found
DIFFERENCES = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1)
HEADINGS = (
    *("metric", "samples", "margin", "comparisons", "equal, called better", "worse by the margin, passed"),
    *("equal, passed", "judged by the interval", "detectable gain"),
)


@dataclass(frozen=True)
class Case:
    """A metric, by how much a model may be worse in it, test samples, and how many comparisons."""

    preset: str
    metric: str
    margin: float
    samples: int
    comparisons: int


CASES = (
    Case("digits", "accuracy", 0.02, 400, 5000),
    Case("digits", "accuracy", 0.02, 2000, 5000),
    Case("digits", "f1_macro", 0.02, 2000, 5000),
    Case("diabetes", "r2", 0.05, 1000, 5000),
)
TRAIN = {"digits": {"epochs": 3}, "diabetes": {}}  # so that the two networks differ


@dataclass(frozen=True)
class Answers:
    """Of two models to the same samples, first outputs [N, ...], and the truth [N, ...]."""

    schema: Schema
    one: np.ndarray
    other: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Found:
    """Of how many comparisons: the challenger passed; was called better; the samples told the margin."""

    passed: np.ndarray
    better: np.ndarray
    told: np.ndarray


def main() -> list[dict[str, Any]]:
    """Rates of both errors with the 99 % lower bounds of the true ones, and what is found four times in five."""
    rows, results = [], []
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(WORKERS) as pool:
        answers = {preset: answered(preset, Path(temporary) / preset) for preset in TRAIN}
        for case in CASES:
            compare = partial(compared, pool, answers[case.preset], case)
            equal, worse = compare(0.0, case.comparisons), compare(-case.margin, case.comparisons)
            found = next((gain for gain in DIFFERENCES if compare(gain, SEARCHED).better.mean() >= POWER), None)
            rows.append(row(case, equal, worse, found))
            print(rows[-1], flush=True)
            what = f"{case.metric} of {case.preset}, {case.samples:,} samples"
            results.append(claim(f"{what}: an equal model called better", equal.better))
            if worse.told.mean() > POWER:
                results.append(claim(f"{what}: one worse by {case.margin:g} passed", worse.passed))
    pages.write(PAGE, [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows])
    return results


def answered(preset: str, folder: Path) -> Answers:
    """What two networks of other seeds answer to the preset's test split, each in Triton."""
    project = workspace.init(workspace.project(folder, {"train": TRAIN[preset]}, preset=preset))
    at = {name: project / path for name, path in params.paths(project / "dvc.yaml").items()}
    served = []
    for seed in (0, 1):
        params.edit({"train": {"seed": seed}}, project / "params.yaml")
        workspace.timed(project, "dvc", "repro", "--quiet", "verify")
        schema = Schema.load(at["schema"])
        served.append(gate.served(at["answers"], schema))
    return Answers(schema, *served, open_split(at["arrays"], "test").target)


def compared(pool: ProcessPoolExecutor, answers: Answers, case: Case, gain: float, comparisons: int) -> Found:
    """So many comparisons in which the challenger is better by `gain`."""
    pieces = pool.map(piece, repeat(answers), repeat(case), repeat(gain), range(comparisons // CHUNK))
    return Found(*np.concatenate(list(pieces), axis=1))


def piece(answers: Answers, case: Case, gain: float, number: int) -> np.ndarray:
    """CHUNK comparisons: whether each passed, was called better, and told the margin, bool [3, CHUNK]."""
    import torch

    torch.set_num_threads(1)
    draw = np.random.default_rng([number, case.samples, int(1e6 * abs(gain)), gain < 0])
    return np.array([list(one(answers, case, gain, draw)) for _ in range(CHUNK)]).T


def one(answers: Answers, case: Case, gain: float, draw: np.random.Generator) -> Iterator[bool]:
    """One comparison, judged."""
    rows = draw.integers(len(answers.truth), size=case.samples)
    coin = draw.random((case.samples, 1)) < 0.5
    one_, other, truth = answers.one[rows], answers.other[rows], answers.truth[rows]
    ours, theirs = np.where(coin, one_, other), np.where(coin, other, one_)
    if gain > 0:
        theirs = spoilt(answers, theirs, truth, gain, draw)
    elif gain < 0:
        ours = spoilt(answers, ours, truth, -gain, draw)
    _, differences = metrics.measure(answers.schema, truth, ours, theirs, (), {case.metric}, LEVEL)
    champion = {"state": "answers", "outcome": "it answered"}
    served = [{"name": "served", "holds": True, "max_delta": None}]
    evidence = Evidence("0123456789ab", {"": Estimate(0.0)}, served, 0.0, champion, differences)
    policy = Policy({"": {"min": 0.0, "max": None}}, {case.metric: case.margin}, LEVEL, 1.0)
    said = judge(evidence, policy)
    yield said["verdict"] == PASS
    yield case.metric in said["better"]
    yield not any(criterion["note"] for criterion in said["criteria"])


def spoilt(answers: Answers, said: np.ndarray, truth: np.ndarray, loss: float, draw: np.random.Generator) -> np.ndarray:
    """The answers [n, ...] of a model that is worse by `loss`, of accuracy or of R2, in the mean."""
    if truth.ndim > 1:
        noise = draw.normal(scale=np.sqrt(loss * answers.truth.var()), size=said.shape)
        return (said + noise).astype(said.dtype)
    right = np.mean([(each.argmax(1) == answers.truth).mean() for each in (answers.one, answers.other)])
    wrong = (said.argmax(1) == truth) & (draw.random(len(said)) < loss / right)
    return np.where(wrong[:, None], np.roll(said, 1, axis=1), said)


def row(case: Case, equal: Found, worse: Found, found: float | None) -> str:
    """Of the table."""
    cells = [f"{case.metric} ({case.preset})", f"{case.samples:,}", f"{case.margin:g}", f"{case.comparisons:,}"]
    cells += [rate(equal.better), rate(worse.passed), f"{equal.passed.mean():.3f}", f"{equal.told.mean():.2f}"]
    return "| " + " | ".join([*cells, f"{found:g}" if found else f"over {DIFFERENCES[-1]:g}"]) + " |"


def rate(happened: np.ndarray) -> str:
    """With the lower bound of the true one."""
    return f"{happened.mean():.4f} (at least {proportions.interval(happened, SURE)[0]:.4f})"


def claim(what: str, happened: np.ndarray) -> dict[str, Any]:
    """As a figure of README."""
    low = proportions.interval(happened, SURE)[0]
    beside = f"{len(happened):,} comparisons; 99 % lower bound {low:.4f}"
    return result(what, f"{happened.mean():.4f}", f"lower bound at most {LEVEL:g}", beside)
