"""How often the gate is wrong about two models, and which gains it detects. The table goes to docs/error-rates.md.

Two networks with different seeds predict a test split in Triton. Comparisons are drawn from these predictions: n
samples with replacement, and for each sample a coin decides which model's prediction goes to which side, so that
neither side is better. To make one side worse by a given amount, correct predictions are made wrong, or noise of the
corresponding variance is added. The gate's own functions judge each comparison.
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
SURE = 0.01  # one minus the confidence of the lower bounds
POWER = 0.8
WORKERS, CHUNK = 2, 50
SEARCHED = 400  # comparisons at each step of the search for the detectable gain
DIFFERENCES = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1)
HEADINGS = (
    *("metric", "samples", "margin", "comparisons", "equal, called better", "worse by the margin, passed"),
    *("equal, passed", "judged by the interval", "detectable gain"),
)


@dataclass(frozen=True)
class Case:
    """A metric, its margin, the number of test samples, and the number of comparisons."""

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
TRAIN = {"digits": {"epochs": 3}, "diabetes": {}}  # short training, so that the two networks differ


@dataclass(frozen=True)
class Answers:
    """Predictions of two models for the same samples [N, ...], and the true values [N, ...]."""

    schema: Schema
    one: np.ndarray
    other: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Found:
    """For each comparison: whether the candidate passed, was called better, and was judged by the interval."""

    passed: np.ndarray
    better: np.ndarray
    judged: np.ndarray


def main() -> list[dict[str, Any]]:
    """The rates of both errors with 99 % lower bounds of the true rates, and the detectable gains."""
    rows, results = [], []
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(WORKERS) as pool:
        answers = {preset: answered(preset, Path(temporary) / preset) for preset in TRAIN}
        for case in CASES:
            compare = partial(compared, pool, answers[case.preset], case)
            equal, worse = compare(0.0, case.comparisons), compare(-case.margin, case.comparisons)
            gain = next((gain for gain in DIFFERENCES if compare(gain, SEARCHED).better.mean() >= POWER), None)
            rows.append(row(case, equal, worse, gain))
            print(rows[-1], flush=True)
            what = f"{case.metric} of {case.preset}, {case.samples:,} samples"
            results.append(claim(f"{what}: an equal model called better", equal.better))
            if worse.judged.mean() > POWER:
                results.append(claim(f"{what}: one worse by {case.margin:g} passed", worse.passed))
    pages.write(PAGE, [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows])
    return results


def answered(preset: str, folder: Path) -> Answers:
    """The predictions of two networks with different seeds for the preset's test split, each in Triton."""
    project = workspace.init(workspace.project(folder, {"train": TRAIN[preset]}, preset=preset))
    at = {name: project / path for name, path in params.paths(project / "dvc.yaml").items()}
    predictions = []
    for seed in (0, 1):
        params.edit({"train": {"seed": seed}}, project / "params.yaml")
        workspace.timed(project, "dvc", "repro", "--quiet", "verify")
        schema = Schema.load(at["schema"])
        predictions.append(gate.served(at["answers"], schema))
    return Answers(schema, *predictions, open_split(at["arrays"], "test").target)


def compared(pool: ProcessPoolExecutor, answers: Answers, case: Case, gain: float, comparisons: int) -> Found:
    """Run comparisons in which the candidate is better by `gain`."""
    pieces = pool.map(piece, repeat(answers), repeat(case), repeat(gain), range(comparisons // CHUNK))
    return Found(*np.concatenate(list(pieces), axis=1))


def piece(answers: Answers, case: Case, gain: float, number: int) -> np.ndarray:
    """CHUNK comparisons: whether each passed, was called better, and was judged by the interval, bool [3, CHUNK]."""
    import torch

    torch.set_num_threads(1)
    draw = np.random.default_rng([number, case.samples, int(1e6 * abs(gain)), gain < 0])
    return np.array([list(one(answers, case, gain, draw)) for _ in range(CHUNK)]).T


def one(answers: Answers, case: Case, gain: float, draw: np.random.Generator) -> Iterator[bool]:
    """Judge one comparison: passed, called better, judged by the interval."""
    rows = draw.integers(len(answers.truth), size=case.samples)
    coin = draw.random((case.samples, 1)) < 0.5
    one_, other, truth = answers.one[rows], answers.other[rows], answers.truth[rows]
    candidate, champion_predictions = np.where(coin, one_, other), np.where(coin, other, one_)
    if gain > 0:
        champion_predictions = spoilt(answers, champion_predictions, truth, gain, draw)
    elif gain < 0:
        candidate = spoilt(answers, candidate, truth, -gain, draw)
    _, differences = metrics.measure(answers.schema, truth, candidate, champion_predictions, (), {case.metric}, LEVEL)
    champion = {"state": "answers", "outcome": "it answered"}
    served = [{"name": "served", "holds": True, "max_delta": None}]
    evidence = Evidence("0123456789ab", {"": Estimate(0.0)}, served, 0.0, champion, differences)
    policy = Policy({"": {"min": 0.0, "max": None}}, {case.metric: case.margin}, LEVEL, 1.0)
    verdict = judge(evidence, policy)
    yield verdict["verdict"] == PASS
    yield case.metric in verdict["better"]
    yield not any(criterion["note"] for criterion in verdict["criteria"])


def spoilt(
    answers: Answers, values: np.ndarray, truth: np.ndarray, loss: float, draw: np.random.Generator
) -> np.ndarray:
    """The predictions [n, ...] of a model whose accuracy or R2 is lower by `loss` on average."""
    if truth.ndim > 1:
        noise = draw.normal(scale=np.sqrt(loss * answers.truth.var()), size=values.shape)
        return (values + noise).astype(values.dtype)
    right = np.mean([(each.argmax(1) == answers.truth).mean() for each in (answers.one, answers.other)])
    flipped = (values.argmax(1) == truth) & (draw.random(len(values)) < loss / right)
    return np.where(flipped[:, None], np.roll(values, 1, axis=1), values)


def row(case: Case, equal: Found, worse: Found, gain: float | None) -> str:
    """A row of the table."""
    cells = [f"{case.metric} ({case.preset})", f"{case.samples:,}", f"{case.margin:g}", f"{case.comparisons:,}"]
    cells += [rate(equal.better), rate(worse.passed), f"{equal.passed.mean():.3f}", f"{equal.judged.mean():.2f}"]
    return "| " + " | ".join([*cells, f"{gain:g}" if gain else f"over {DIFFERENCES[-1]:g}"]) + " |"


def rate(happened: np.ndarray) -> str:
    """Format a rate with the lower bound of the true rate."""
    return f"{happened.mean():.4f} (at least {proportions.interval(happened, SURE)[0]:.4f})"


def claim(what: str, happened: np.ndarray) -> dict[str, Any]:
    """A result for docs/figures.md."""
    low = proportions.interval(happened, SURE)[0]
    note = f"{len(happened):,} comparisons; 99 % lower bound {low:.4f}"
    return result(what, f"{happened.mean():.4f}", f"lower bound at most {LEVEL:g}", note)
