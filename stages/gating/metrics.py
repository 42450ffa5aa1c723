"""Metrics of served answers with their intervals, and how two models differ on the same samples."""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import NormalDist

import numpy as np

from stages.evaluation import metrics
from stages.gating.verdict import Difference, Estimate
from stages.schema import Schema
from stages.stats import proportions
from stages.stats.bootstrap import ROUNDS

RANKED = "weibull"  # (R + 1)p, Davison and Hinkley, "Bootstrap Methods" (1997), 5.2.3; the default lies too far within


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
    """Every metric, by the definitions that training uses; with an interval those that are bounded or compared.

    Shares have intervals by formula, other metrics by the bootstrap.
    """
    import torch

    from stages.stats.bootstrap import resampled

    measures, target, y = metrics.of(schema.target), schema.target, torch.from_numpy(truth)
    mine, hits = figures(schema, truth, ours), measures.hits(ours, truth, target)
    drawn = resampled(measures, target, torch.from_numpy(ours), y, {*bounded, *compared} - hits.keys(), rounds)
    unseen = NormalDist().inv_cdf(1 - level) ** 2 / len(truth) if hits else 0.0  # see shares.difference
    ends = {
        name: spread(each, mine[name], unseen, measures.METRICS.get(name, (0.0, 1.0)), level)
        for name, each in drawn.items()
        if np.isfinite(each).any() and name in mine
    }
    ends |= {name: proportions.interval(hit[among], level) for name, (hit, among) in hits.items() if among.any()}
    measured = {name: Estimate(value, *map(float, ends.get(name, ()))) for name, value in mine.items()}
    if theirs is None:
        return measured, {}
    his, his_hits = figures(schema, truth, theirs), measures.hits(theirs, truth, target)
    paired = {
        name: Difference(
            *proportions.difference(hit[among], his_hits[name][0][among], level), int(among.sum()), his[name]
        )
        for name, (hit, among) in hits.items()
        if among.any()
    }
    his_drawn = resampled(measures, target, torch.from_numpy(theirs), y, compared - hits.keys(), rounds)
    whole = measures.metrics(target)
    least_error = max((each.error for each in paired.values() if each.samples == len(truth)), default=0.0)
    for name in (drawn.keys() & compared) & mine.keys():
        sign = 1 if whole[name.partition("[")[0]].higher_is_better else -1
        gained = sign * (drawn[name] - his_drawn[name])
        if len(truth) < 2 or not np.isfinite(gained).any():
            continue
        found = difference(sign * (mine[name] - his[name]), gained, len(truth), level, least_error)
        paired[name] = Difference(*found, len(truth), his[name])
    return measured, {name: paired[name] for name in compared if name in paired}


def spread(drawn: np.ndarray, value: float, unseen: float, limits: tuple[float, float], level: float) -> np.ndarray:
    """The ends of a metric by the rounds [R] of the bootstrap, and at least `unseen` from it, within its `limits`."""
    low, high = np.nanquantile(drawn, [level, 1 - level], method=RANKED)
    return np.clip([min(low, value - unseen), max(high, value + unseen)], *limits)


def difference(
    value: float, gained: np.ndarray, samples: int, level: float, least_error: float
) -> tuple[float, float, float]:
    """A metric's difference, its lower end and its error, by what was gained in each round [R] of the bootstrap.

    That knows nothing of what few samples do not show, and so is trusted no further than `least_error` allows. The end
    is the lower one of the percentile interval and of Student's, since the former alone is a little too high.
    """
    from scipy.stats import t

    error = max(float(np.nanstd(gained, ddof=1)) * math.sqrt(samples / (samples - 1)), least_error)
    ranked = float(np.nanquantile(gained, level, method=RANKED))
    return value, min(ranked, value - float(t.ppf(1 - level, samples - 1)) * error), error


def undefined(schema: Schema, truth: np.ndarray) -> set[str]:
    """The metrics that samples of these true values [N, ...] do not define, whatever is answered to them."""
    return set(metrics.of(schema.target).undefined(truth, schema.target))


def figures(schema: Schema, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Every metric of answers [N, ...], held against the truth [N, ...]."""
    import torch

    measures = metrics.of(schema.target)
    collection = measures.metrics(schema.target)
    collection.update(torch.from_numpy(answers), torch.from_numpy(truth))
    return dict(measures.scalars(collection.compute(), schema.target))
