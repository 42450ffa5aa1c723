"""Metrics of the served answers with intervals, and how two models differ on the same samples."""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from stages.evaluation import metrics
from stages.gating.evidence import Difference, Estimate
from stages.schema import Schema
from stages.stats import proportions
from stages.stats.bootstrap import ROUNDS

# Quantiles at (R + 1)p: Davison and Hinkley, "Bootstrap Methods" (1997), 5.2.3. numpy's default is too narrow.
QUANTILES: Literal["weibull"] = "weibull"


def measure(
    schema: Schema,
    truth: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray | None,
    bounded: Collection[str],
    compared: Collection[str],
    level: float,
    rounds: int = ROUNDS,
) -> tuple[dict[str, Estimate], dict[str, Difference]]:
    """Every metric of our predictions, and the differences from theirs, by the definitions that training uses.

    Metrics that are bounded or compared get intervals: exact ones for shares, others by the bootstrap.
    """
    import torch

    from stages.stats.bootstrap import resampled

    definitions, target, y = metrics.of(schema.target), schema.target, torch.from_numpy(truth)
    values, hits = figures(schema, truth, ours), definitions.hits(ours, truth, target)
    drawn = resampled(definitions, target, torch.from_numpy(ours), y, {*bounded, *compared} - hits.keys(), rounds)
    unseen = NormalDist().inv_cdf(1 - level) ** 2 / len(truth) if hits else 0.0  # see proportions.difference
    ends: dict[str, Any] = {
        name: spread(draws, values[name], unseen, definitions.METRICS.get(name, (0.0, 1.0)), level)
        for name, draws in drawn.items()
        if np.isfinite(draws).any() and name in values
    }
    ends |= {name: proportions.interval(hit[among], level) for name, (hit, among) in hits.items() if among.any()}
    measured = {name: Estimate(value, *map(float, ends.get(name, ()))) for name, value in values.items()}
    if theirs is None:
        return measured, {}
    their_values, their_hits = figures(schema, truth, theirs), definitions.hits(theirs, truth, target)
    differences = {
        name: Difference(
            *proportions.difference(hit[among], their_hits[name][0][among], level), int(among.sum()), their_values[name]
        )
        for name, (hit, among) in hits.items()
        if among.any()
    }
    their_drawn = resampled(definitions, target, torch.from_numpy(theirs), y, compared - hits.keys(), rounds)
    collection = definitions.metrics(target)
    full = (difference for difference in differences.values() if difference.samples == len(truth))
    least_error = max((difference.error for difference in full), default=0.0)
    for name in (drawn.keys() & compared) & values.keys():
        sign = 1 if collection[name.partition("[")[0]].higher_is_better else -1
        gained = sign * (drawn[name] - their_drawn[name])
        if len(truth) < 2 or not np.isfinite(gained).any():
            continue
        gain = difference(sign * (values[name] - their_values[name]), gained, len(truth), level, least_error)
        differences[name] = Difference(*gain, len(truth), their_values[name])
    return measured, {name: differences[name] for name in compared if name in differences}


def spread(drawn: np.ndarray, value: float, unseen: float, limits: tuple[float, float], level: float) -> np.ndarray:
    """The ends of a metric's interval by the rounds [R] of the bootstrap.

    They lie at least `unseen` from the value, and within the metric's `limits`.
    """
    low, high = np.nanquantile(drawn, [level, 1 - level], method=QUANTILES)
    ends: np.ndarray = np.clip([min(low, value - unseen), max(high, value + unseen)], *limits)
    return ends


def difference(
    value: float, gained: np.ndarray, samples: int, level: float, least_error: float
) -> tuple[float, float, float]:
    """A metric's difference, its lower end and its error, by the gain in each round [R] of the bootstrap.

    The bootstrap cannot draw what few samples do not show, so the error is at least `least_error`. The end is the lower
    one of the percentile interval's and of Student's, since the percentile interval alone is a little too narrow.
    """
    from scipy.stats import t

    error = max(float(np.nanstd(gained, ddof=1)) * math.sqrt(samples / (samples - 1)), least_error)
    quantile = float(np.nanquantile(gained, level, method=QUANTILES))
    return value, min(quantile, value - float(t.ppf(1 - level, samples - 1)) * error), error


def undefined(schema: Schema, truth: np.ndarray) -> set[str]:
    """The metrics that samples with this truth [N, ...] do not define, whatever is predicted."""
    return set(metrics.of(schema.target).undefined(truth, schema.target))


def figures(schema: Schema, truth: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Every metric of predictions [N, ...] for the truth [N, ...]."""
    import torch

    definitions = metrics.of(schema.target)
    collection = definitions.metrics(schema.target)
    collection.update(torch.from_numpy(predictions), torch.from_numpy(truth))
    return dict(definitions.scalars(collection.compute(), schema.target))
