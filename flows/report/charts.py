"""Where things lie on a drawing, in per cent of its width and height: an interval beside its limits, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.tables.distributions import Numbers, Summary, Words, common, shares

ROOM = 0.12  # on either side of what is drawn, as a share of it
STEEP = 10.0  # what falls to less than its tenth is drawn on a logarithmic scale
MOST_TICKS = 5
BINS = 24  # of a histogram
MOST_WORDS = 12
LEAST = 1e-9  # a share of less is none
GAP = 0.08  # on either side of a bar, as a share of its room

Ends = Sequence[float | None]  # of an interval, both; None where it is open


@dataclass(frozen=True)
class Interval:
    """`low`, `high`: the interval's ends, or the drawing's own where it is open. `least`, `most`: what still holds."""

    value: float
    low: float
    high: float
    least: float | None
    most: float | None
    zero: float | None


@dataclass(frozen=True)
class Chart:
    """`curves`: name -> points of an SVG polyline; `ticks`: height and text of each."""

    title: str
    curves: Mapping[str, str]
    ticks: Sequence[tuple[float, str]]
    epochs: int


@dataclass(frozen=True)
class Histogram:
    """`bars`: left end, width and height of each; `line`: points of an SVG polyline, the other data's heights.

    `first`, `last`: what the bars at the ends are of. `only`: the one value that there is, which is not drawn.
    """

    bars: Sequence[tuple[float, float, float]]
    line: str
    first: str
    last: str
    only: str = ""


def histogram(new: Summary, old: Summary) -> Histogram | None:
    """How values are distributed, drawn over how they were elsewhere; None of no rows, or of numbers and words."""
    if not (new.rows and old.rows):
        return None
    if isinstance(new, Words) and isinstance(old, Words):
        told = common(old, new)
        often = sorted(filter(None, told), key=lambda word: -max(told[word]))[:MOST_WORDS]
        names = sorted(often, key=lambda word: (len(word), word))
        rest = np.sum([pair for word, pair in told.items() if word not in often], axis=0)
        heights = np.array([*(told[word] for word in names), rest]).T
        names = [*names, "others"] if rest.max() > LEAST else names
        heights = heights[:, : len(names)]
    elif isinstance(new, Numbers) and isinstance(old, Numbers):
        cuts = np.union1d(new.cuts, old.cuts)
        if len(cuts) > BINS:  # but for the tails: all that lies beyond is in the bars at the ends
            inner = [value for each in (new, old) for value in (each.cuts[1:-1] or each.cuts)]
            cuts = np.linspace(min(inner), max(inner), BINS)
        names = [f"{cut:.4g}" if abs(cut) < 10_000 else f"{cut:,.0f}" for cut in cuts]
        heights = np.array([_parts(each, cuts) for each in (old, new)])
    else:
        return None
    if not len(names):
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
    """The shares of rows up to each of the cuts and above the one before; the last has all that is left."""
    _, at_most = shares(summary, cuts)
    return np.diff(np.append(at_most[:-1], 1.0), prepend=summary.missing / summary.rows)


def interval(value: float | None, ends: Ends, limits: Ends, *, zero: bool = False, among: Ends = ()) -> Interval | None:
    """A value, its interval and its limits on one line, with 0 if it is a difference; None without a limit.

    `among`: numbers of others that are drawn to the same scale.
    """
    from_zero = zero or (value is not None and value >= 0 and limits[0] is None)
    shown = [x for x in (value, *ends, *limits, *among, 0.0 if from_zero else None) if x is not None]
    if value is None or all(limit is None for limit in limits):
        return None
    room = ROOM * ((max(shown) - min(shown)) or abs(value) or 1.0)
    low, high = min(shown) - room, max(shown) + room

    def at(x: float) -> float:
        return round(100 * (x - low) / (high - low), 2)

    first, last = (value, value) if all(end is None for end in ends) else (low, high)
    least, most = (None if limit is None else at(limit) for limit in limits)
    return Interval(
        at(value),
        at(first if ends[0] is None else ends[0]),
        at(last if ends[1] is None else ends[1]),
        least,
        most,
        at(0.0) if zero else None,
    )


def chart(title: str, columns: Mapping[str, Sequence[float]]) -> Chart | None:
    """Columns of one number for each epoch, on one scale; None where none of them is finite."""
    known = [x for column in columns.values() for x in column if math.isfinite(x)]
    if not known:
        return None
    steep = min(known) > 0 and max(known) > STEEP * min(known)
    scale = math.log10 if steep else float
    low, high = scale(min(known)), scale(max(known))
    room = ROOM / 2 * ((high - low) or abs(high) or 1.0)
    low, high = low - room, high + room
    epochs = max(map(len, columns.values()))

    def height(x: float) -> float:
        return round(100 * (high - scale(x)) / (high - low), 2)

    def points(column: Sequence[float]) -> str:
        each = [
            f"{round(100 * epoch / max(1, epochs - 1), 2)},{height(x)}"
            for epoch, x in enumerate(column)
            if math.isfinite(x)
        ]
        return " ".join(each * 2 if len(each) == 1 else each)  # one point is a line to itself, a dot

    marks = steep_ticks(10**low, 10**high) if steep else ticks(low, high)
    return Chart(
        title + (", log scale" if steep else ""),
        {name: points(column) for name, column in columns.items()},
        [(height(x), f"{x:.4g}") for x in marks],
        epochs,
    )


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers between two."""
    least = (high - low) / MOST_TICKS
    ten = 10.0 ** math.floor(math.log10(least))
    step = next(ten * times for times in (1, 2, 5, 10) if ten * times >= least)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def steep_ticks(low: float, high: float) -> list[float]:
    """A few powers of ten between two, and what lies between those where there is room."""
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5)):
        tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        denser = [x for ten in tens for digit in digits if low <= (x := digit * 10.0**ten) <= high]
        if len(denser) <= MOST_TICKS or not found:
            found = denser
    return found[:: -(-len(found) // MOST_TICKS) or 1]
