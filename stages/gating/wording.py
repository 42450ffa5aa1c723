"""How a verdict writes numbers and explains them."""

from __future__ import annotations

import math

MANY = 1000.0  # times; beyond its square, a number of samples is no advice


def too_few(name: str, samples: int, margin: float, needed: float) -> str:
    """The number of samples or the margin with which a model as good as the champion passes four times in five."""
    times = (needed / margin) if margin else math.inf
    more = f"about {math.ceil(samples * times**2):,} samples or " if times < MANY else ""
    return (
        f"{samples:,} test samples are too few to test a margin of {margin:g}: {more}a margin of {round_up(needed):g}"
        f" would do. {name} is judged by its value alone"
    )


def round_up(value: float) -> float:
    """Round up to two significant digits."""
    if not 0 < value < math.inf:
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step) * step:.2g}") if step else value


def distinct(value: float, *limits: float | None) -> str:
    """Write a value with four decimals, or with as many more as make it differ from its limits."""
    texts = (f"{value:.{decimals}f}" for decimals in range(4, 17))
    return next((text for text in texts if float(text) not in limits), repr(value))


def stated(value: float) -> float | None:
    """Round a value for the verdict; None if it is not finite."""
    return round(value, 6) if math.isfinite(value) else None


def interval(low: float, high: float) -> tuple[float | None, float | None] | None:
    """Round both ends for the verdict; None if neither is finite."""
    ends = stated(low), stated(high)
    return ends if any(end is not None for end in ends) else None
