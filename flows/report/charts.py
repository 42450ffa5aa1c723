"""Positions in the report's drawings, in percent of width and height: intervals, curves and histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.tables.distributions import Numbers, Summary, Words, common, shares

MARGIN = 0.12  # on either side, as a share of the drawn range
LOG_FROM = 10.0  # ratio of the largest to the smallest value from which the scale is logarithmic
MOST_TICKS = 5
BINS = 24  # at most in a histogram
MOST_WORDS = 12
SMALLEST = 1e-9  # smaller shares are not drawn
GAP = 0.08  # on either side of a bar, as a share of its width

Ends = Sequence[float | None]  # both ends of an interval; None where it is open


@dataclass(frozen=True)
class Interval:
    """`low`, `high`: the interval's ends, or the drawing's where it is open. `least`, `most`: the bounds."""

    value: float
    low: float
    high: float
    least: float | None
    most: float | None
    zero: float | None


@dataclass(frozen=True)
class Chart:
    """`curves`: name -> points of an SVG polyline. `ticks`: height and text of each."""

    title: str
    curves: Mapping[str, str]
    ticks: Sequence[tuple[float, str]]
    epochs: int


@dataclass(frozen=True)
class Histogram:
    """`bars`: left end, width and height of each. `line`: the other data's heights, as points of an SVG polyline.

    `first`, `last`: labels of the first and last bar. `only`: the value, if there is only one; then nothing is drawn.
    """

    bars: Sequence[tuple[float, float, float]]
    line: str
    first: str
    last: str
    only: str = ""


def histogram(new: Summary, old: Summary) -> Histogram | None:
    """Draw one distribution over another; None if either is empty or their types differ."""
    if not (new.rows and old.rows):
        return None
    if isinstance(new, Words) and isinstance(old, Words):
        pairs = common(old, new)
        frequent = sorted(filter(None, pairs), key=lambda word: -max(pairs[word]))[:MOST_WORDS]
        names = sorted(frequent, key=lambda word: (len(word), word))
        rest = np.sum([pair for word, pair in pairs.items() if word not in frequent], axis=0)
        heights = np.array([*(pairs[word] for word in names), rest]).T
        names = [*names, "others"] if rest.max() > SMALLEST else names
        heights = heights[:, : len(names)]
    elif isinstance(new, Numbers) and isinstance(old, Numbers):
        cuts = np.union1d(new.cuts, old.cuts)
        if len(cuts) > BINS:  # the first and the last bar contain the tails
            inner = [value for summary in (new, old) for value in (summary.cuts[1:-1] or summary.cuts)]
            cuts = np.linspace(min(inner), max(inner), BINS)
        names = [f"{cut:.4g}" if abs(cut) < 10_000 else f"{cut:,.0f}" for cut in cuts]
        heights = np.array([_parts(summary, cuts) for summary in (old, new)])
    else:
        return None
    if len(names) == 0:
        return Histogram((), "", "", "", "all missing")
    if len(names) == 1:
        return Histogram((), "", "", "", names[0])
    was, now = 100 * heights / (heights.max() or 1.0)
    width = 100 / len(names)
    bars = [
        (round((i + GAP) * width, 2), round((1 - 2 * GAP) * width, 2), round(float(y), 2)) for i, y in enumerate(now)
    ]
    corners = [f"{round((i + end) * width, 2)},{round(100 - float(y), 2)}" for i, y in enumerate(was) for end in (0, 1)]
    return Histogram(bars, " ".join(corners), names[0], names[-1])


def _parts(summary: Numbers, cuts: np.ndarray) -> np.ndarray:
    """The share of rows between each cut and the one before; the last share has all larger values."""
    _, at_most = shares(summary, cuts)
    return np.diff(np.append(at_most[:-1], 1.0), prepend=summary.missing / summary.rows)


def interval(value: float | None, ends: Ends, limits: Ends, *, zero: bool = False, among: Ends = ()) -> Interval | None:
    """Draw a value, its interval and its limits on one line; None without a limit.

    Args:
        value: the metric.
        ends: of its interval.
        limits: the smallest and the largest value that hold.
        zero: whether to mark zero, for differences.
        among: other numbers that are drawn to the same scale.
    """
    from_zero = zero or (value is not None and value >= 0 and limits[0] is None)
    shown = [x for x in (value, *ends, *limits, *among, 0.0 if from_zero else None) if x is not None]
    if value is None or all(limit is None for limit in limits):
        return None
    margin = MARGIN * ((max(shown) - min(shown)) or abs(value) or 1.0)
    low, high = min(shown) - margin, max(shown) + margin

    def position(x: float) -> float:
        return round(100 * (x - low) / (high - low), 2)

    first, last = (value, value) if all(end is None for end in ends) else (low, high)
    least, most = (None if limit is None else position(limit) for limit in limits)
    return Interval(
        position(value),
        position(first if ends[0] is None else ends[0]),
        position(last if ends[1] is None else ends[1]),
        least,
        most,
        position(0.0) if zero else None,
    )


def chart(title: str, columns: Mapping[str, Sequence[float]]) -> Chart | None:
    """Draw curves with a value for each epoch on one scale; None if no value is finite."""
    finite = [x for column in columns.values() for x in column if math.isfinite(x)]
    if not finite:
        return None
    logarithmic = min(finite) > 0 and max(finite) > LOG_FROM * min(finite)
    scale = math.log10 if logarithmic else float
    low, high = scale(min(finite)), scale(max(finite))
    margin = MARGIN / 2 * ((high - low) or abs(high) or 1.0)
    low, high = low - margin, high + margin
    epochs = max(map(len, columns.values()))

    def height(x: float) -> float:
        return round(100 * (high - scale(x)) / (high - low), 2)

    def points(column: Sequence[float]) -> str:
        corners = [
            f"{round(100 * epoch / max(1, epochs - 1), 2)},{height(x)}"
            for epoch, x in enumerate(column)
            if math.isfinite(x)
        ]
        return " ".join(corners * 2 if len(corners) == 1 else corners)  # a single point is drawn as a dot

    marks = log_ticks(10**low, 10**high) if logarithmic else ticks(low, high)
    return Chart(
        title + (", log scale" if logarithmic else ""),
        {name: points(column) for name, column in columns.items()},
        [(height(x), f"{x:.4g}") for x in marks],
        epochs,
    )


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers between `low` and `high`."""
    least = (high - low) / MOST_TICKS
    ten = 10.0 ** math.floor(math.log10(least))
    step = next(ten * times for times in (1, 2, 5, 10) if ten * times >= least)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """A few powers of ten between `low` and `high`, and multiples of them if there are only a few."""
    chosen: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5)):
        tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        denser = [x for ten in tens for digit in digits if low <= (x := digit * 10.0**ten) <= high]
        if len(denser) <= MOST_TICKS or not chosen:
            chosen = denser
    return chosen[:: -(-len(chosen) // MOST_TICKS) or 1]
