"""How far a median may be off, by a formula that assumes nothing of the values but that they are independent."""

from __future__ import annotations

import math
from collections.abc import Sequence


def interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """The ends of the median that values [N] are drawn from, which lies beyond each of them with at most `level`.

    They are two of the values, by the sign test (Thompson, "On confidence ranges for the median", Annals of
    Mathematical Statistics 1936); infinite where so few values tell nothing.
    """
    from scipy.stats import binom

    ascending, place = sorted(values), int(binom.ppf(level, len(values), 0.5))  # fewer lie below it with at most level
    return (ascending[place - 1], ascending[-place]) if place and ascending else (-math.inf, math.inf)
