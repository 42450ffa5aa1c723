"""The center of a symmetric distribution, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def middle(values: Sequence[float], level: float) -> tuple[float, float, float]:
    """Estimate the center of the symmetric distribution of values [N], with both ends of its interval.

    The true center lies beyond each end with probability `level` at most. By the signed-rank test (Hodges and Lehmann,
    "Estimates of location based on rank tests", Annals of Mathematical Statistics 1963): the center is the median of
    the means of all pairs, and the ends are two of these means. With too few values the ends are infinite.
    """
    if not len(values):
        return math.nan, -math.inf, math.inf
    sample = np.asarray(values, np.float64)
    means = np.sort(((sample[:, None] + sample) / 2)[np.triu_indices(len(sample))])
    beyond = _ranks_below(len(sample), level)
    low, high = (means[beyond - 1], means[-beyond]) if beyond else (-math.inf, math.inf)
    return float(np.median(means)), float(low), float(high)


def _ranks_below(count: int, level: float) -> int:
    """The number of smallest signed-rank sums of `count` values whose probability is at most `level` in all."""
    probabilities = np.ones(1)
    for rank in range(1, count + 1):
        probabilities = (np.pad(probabilities, (0, rank)) + np.pad(probabilities, (rank, 0))) / 2
    return int(np.searchsorted(probabilities.cumsum(), level, side="right"))
