"""How a verdict writes numbers and explains them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stages.evaluation.yardsticks import CONSTANT, NAMES
from stages.gating.evidence import Comparison

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


def not_above(found: Comparison) -> str:
    """The candidate is not better than the constant answer."""
    if found.gain is None or not found.gain.is_finite:
        return f"{found.metric} could not be compared with {NAMES[CONSTANT]}'s on {found.rows:,} test rows"
    constant = found.values[CONSTANT]
    return (
        f"{found.metric} is {found.value:.4f} and {NAMES[CONSTANT]}'s {constant:.4f}, on {found.rows:,} test rows: not"
        " better by more than chance"
    )


def reachable(found: Comparison) -> str:
    """What simple models reach on the same rows, and what to do."""
    best, others = found.values[found.best], _others(found)
    if found.best != CONSTANT and best > found.value and best > found.values[CONSTANT]:
        return f"{NAMES[found.best]} reaches {best:.4f} on the same rows: train longer, or change model and train"
    if found.best != CONSTANT:
        return f"no simple model is better than this one ({others}): add rows, so that less is left to chance"
    return f"nor is any simple model on the val rows (on these, {others}): add columns that tell the target, or rows"


def behind(found: Comparison, margin: float) -> str:
    """The candidate is worse than the best simple model."""
    if found.lag is None or not found.lag.is_finite:
        return f"{found.metric} could not be compared with {NAMES[found.best]}'s on {found.rows:,} test rows: add rows"
    lag, low = (distinct(value, margin) for value in (found.lag.value, found.lag.low))
    return (
        f"{NAMES[found.best]} reaches {found.metric} {found.values[found.best]:.4f} on the same rows, this model"
        f" {found.value:.4f}: worse by {lag}, at least {low}; gate.yardsticks.margin allows {margin:g}: train longer,"
        " or change model and train"
    )


def unsure(found: Comparison, margin: float) -> str:
    """The candidate seems worse than the best simple model, on too few rows to refuse it."""
    return (
        f"{NAMES[found.best]} reaches {found.metric} {found.values[found.best]:.4f} on the same rows, this model"
        f" {found.value:.4f}; {found.rows:,} test rows are too few to say that more than {margin:g} of this is no"
        " chance"
    )


def beside(yardsticks: Mapping[str, Any]) -> str:
    """The line under a verdict: the metric of each simple model, and of this one."""
    values = {**yardsticks["values"], "this model": yardsticks["value"]}
    shown = " \N{MIDDLE DOT} ".join(f"{name} {'unknown' if x is None else f'{x:.2f}'}" for name, x in values.items())
    return f"{yardsticks['metric']} on the same rows: {shown}"


def _others(found: Comparison) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in found.values.items() if name != CONSTANT)
