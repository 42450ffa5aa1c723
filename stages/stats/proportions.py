"""Confidence intervals of proportions, such as the share of right answers, that hold with few samples."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

TINY = 1e-9  # below the value, where the variance may be 0


def interval(hits: np.ndarray, level: float) -> tuple[float, float]:
    """The ends of the interval of the share of hits, bool [N].

    The true share lies beyond each end with probability `level` at most. Clopper and Pearson, "The use of confidence or
    fiducial limits illustrated in the case of the binomial", Biometrika 1934.
    """
    from scipy.stats import beta

    # equal to scipy's binomtest(...).proportion_ci(method="exact") to 1e-12, 20 times as fast, for thousands of slices
    hit, missed = int(hits.sum()), int((~hits).sum())
    low = float(beta.ppf(level, hit, missed + 1)) if hit else 0.0
    high = float(beta.ppf(1 - level, hit + 1, missed)) if missed else 1.0
    return low, high


def difference(ours: np.ndarray, theirs: np.ndarray, level: float) -> tuple[float, float, float]:
    """The difference of our share of hits and theirs on the same samples, bool [N] each, N > 0.

    Returns its value; its lower end at `level`, of the score interval for pairs (Tango, "Equivalence test and
    confidence interval for the difference in proportions for the paired-sample design", Statistics in Medicine 1998);
    and its standard error if both were equally good. The error counts the samples that only we hit, as many that only
    they hit, and z^2 more for those that few samples do not show; so a further loss does not enlarge it.
    """
    from scipy.optimize import brentq

    samples, z = len(ours), NormalDist().inv_cdf(1 - level)
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    value = (won - lost) / samples

    def beyond(least: float) -> float:
        """Tango's score, squared, minus z^2: 0 at the end of the interval."""
        linear = -won - lost + (2 * samples - won + lost) * least
        root = math.sqrt(linear**2 + 8 * samples * lost * least * (1 - least))
        variance = samples * ((root - linear) / (2 * samples) + least * (1 - least))
        return (won - lost - samples * least) ** 2 - z**2 * variance

    low = float(brentq(beyond, -1.0, value - min(TINY, z**2 / (2 * samples)))) if value > -1 else -1.0
    return value, low, math.sqrt(2 * won + z**2) / samples
