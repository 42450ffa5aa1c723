"""The middle of values that chance moves up as often as down, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def middle(values: Sequence[float], level: float) -> tuple[float, float, float]:
    """The center of what values [N] are drawn from, if symmetric, and ends beyond each of which it lies with `level`.

    By the signed-rank test (Hodges and Lehmann, "Estimates of location based on rank tests", Annals of Mathematical
    Statistics 1963): the center is the median of the means of all pairs, and the ends are two of these means. The ends
    are infinite where so few values tell nothing.
    """
    if not len(values):
        return math.nan, -math.inf, math.inf
    given = np.asarray(values, np.float64)
    means = np.sort(((given[:, None] + given) / 2)[np.triu_indices(len(given))])
    beyond = _ranks_below(len(given), level)
    low, high = (means[beyond - 1], means[-beyond]) if beyond else (-math.inf, math.inf)
    return float(np.median(means)), float(low), float(high)


def _ranks_below(count: int, level: float) -> int:
    """How many of the least sums of signed ranks of `count` values occur with at most `level` together."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return int(np.searchsorted(chances.cumsum(), level, side="right"))
