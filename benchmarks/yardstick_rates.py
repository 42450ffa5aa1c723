"""How often the gate is wrong about a model beside simple ones. The table goes to docs/error-rates.md.

The answers are drawn: a class of two, equally frequent, and a number. A model that knows nothing answers at random, or
adds noise to the mean. A model that is worse by exactly the margin, or as good as the best simple one, makes its
mistakes independently of it, which is the hardest case. The gate's own functions judge each comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import pages
from benchmarks.error_rates import LEVEL, PAGE, claim, rate
from stages.evaluation.yardsticks import CONSTANT, LINEAR, Yardsticks
from stages.gating.criteria import criteria_of
from stages.gating.evidence import YARDSTICK, Comparison, Difference, Evidence, Policy, YardstickBounds
from stages.gating.yardsticks import FEW_ROUNDS, compare
from stages.schema import Column, Schema
from stages.stats import proportions

MARGIN = 0.02
COMPARISONS = {"accuracy": 5000, "r2": 500}
ROWS = (30, 100, 400, 2000)
SHARE, EXPLAINED = 0.85, 0.8  # of right answers, and of the variance, by the best simple model
BOUNDS = {"above": YardstickBounds(above_constant=True), "margin": YardstickBounds(margin=MARGIN)}
NUMBER = Schema((), Column("y", "target_number", {}, {"mean": 0.0, "std": 1.0, "coverage": 0.9}))
HEADINGS = (
    *("metric", "test rows", "comparisons", "knows nothing, passed", "worse by the margin, refused"),
    *("as good as the best, refused", "worse by 0.1, refused"),
)

Draw = Callable[[np.random.Generator, int, float], Comparison]  # rows and how much worse than the best -> a comparison


def main() -> list[dict[str, Any]]:
    """The rates of both errors, with 99 % lower bounds of the true rates, and how often a bad model is refused."""
    rows, results = [], []
    for metric, draw in (("accuracy", accuracy), ("r2", r2)):
        for count in ROWS:
            many = COMPARISONS[metric]
            passed = ~refused(draw, count, None, "above", many)
            worse, equal, bad = (refused(draw, count, lag, "margin", many) for lag in (MARGIN, 0.0, 0.1))
            cells = [metric, f"{count:,}", f"{many:,}", rate(passed), rate(worse), f"{equal.mean():.3f}"]
            rows.append("| " + " | ".join([*cells, f"{bad.mean():.3f}"]) + " |")
            print(rows[-1], flush=True)
            results.append(claim(f"{metric}, {count:,} rows: a model that knows nothing passed", passed))
            results.append(claim(f"{metric}, {count:,} rows: one worse by the margin refused", worse))
    pages.write(PAGE, [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows], "yardsticks")
    return results


def refused(draw: Draw, rows: int, lag: float | None, bound: str, comparisons: int) -> np.ndarray:
    """Whether each comparison is refused, bool [comparisons]. `lag`: None for a model that knows nothing."""
    random = np.random.default_rng([rows, 0 if lag is None else 1 + round(1000 * lag)])
    policy = Policy({}, {}, LEVEL, 1.0, (), {}, BOUNDS[bound])
    evidence = Evidence("", {}, (), 0.0, {"state": "none"})
    found = (
        replace(evidence, yardsticks=draw(random, rows, np.nan if lag is None else lag)) for _ in range(comparisons)
    )
    return np.array(
        [not all(each.holds for each in criteria_of(compared, policy) if each.about == YARDSTICK) for compared in found]
    )


def accuracy(random: np.random.Generator, rows: int, lag: float) -> Comparison:
    """Two classes, from which rows are right, as `stages.gating.yardsticks.compare` finds them."""
    best, ours = (random.random(rows) < share for share in (SHARE, 0.5 if np.isnan(lag) else SHARE - lag))
    constant = random.random(rows) < 0.5

    def difference(one: np.ndarray, other: np.ndarray) -> Difference:
        return Difference(*proportions.difference(one, other, LEVEL), rows)

    values = {CONSTANT: float(constant.mean()), LINEAR: float(best.mean())}
    return Comparison(
        "accuracy", float(ours.mean()), values, LINEAR, rows, difference(ours, constant), difference(best, ours)
    )


def r2(random: np.random.Generator, rows: int, lag: float) -> Comparison:
    """A number, with answers that explain so much of its variance."""
    truth = random.normal(size=(rows, 1))
    noise = [np.sqrt(1 - EXPLAINED + worse) for worse in (0.0, np.nan_to_num(lag))]
    best, ours = (truth + random.normal(scale=scale, size=(rows, 1)) for scale in noise)
    ours = random.normal(scale=0.1, size=(rows, 1)) if np.isnan(lag) else ours
    simple = Yardsticks({CONSTANT: np.zeros((rows, 1), np.float32), LINEAR: best.astype(np.float32)}, LINEAR)
    return compare(NUMBER, truth.astype(np.float32), ours.astype(np.float32), simple, LEVEL, FEW_ROUNDS)
