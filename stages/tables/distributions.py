"""Summaries of the distributions of columns, small enough to keep, and the distance between two of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stages.core.errors import UserError
from stages.schema import Schema, kind

QUANTILES = 64  # parts with about as many values each, between which the cuts of numbers lie
WORDS = 50  # how many of the most frequent words are counted, each by itself


@dataclass(frozen=True)
class Numbers:
    """Numbers: for each of the ascending `cuts` how many are `below` it, and `at_most` it.

    `rows` counts all cells, the `missing` ones among them.
    """

    rows: int
    missing: int
    cuts: list[float]
    below: list[int]
    at_most: list[int]


@dataclass(frozen=True)
class Words:
    """Words: `counts` of the most frequent ones, and how many cells hold `others`.

    `rows` counts all cells, the `missing` ones among them.
    """

    rows: int
    missing: int
    counts: dict[str, int]
    others: int


Summary = Numbers | Words
Statistics = Mapping[str, Mapping[str, Summary]]  # column or fact, split


@dataclass(frozen=True)
class Distance:
    """The distance of two summaries.

    `value`: see `distance`; `chance`: its mean for two samples of the same distribution; `moved`: the largest change.
    """

    value: float
    chance: float
    moved: str


def described(schema: Schema) -> list[str]:
    """The table's columns to summarize: the target, and of each feature its facts or, without facts, its values."""
    facts = {column.name: kind(column.kind).facts(()) for column in schema.features}
    described = [[f"{name}.{fact}" for fact in values] or [name] for name, values in facts.items()]
    return [schema.target.name, *(name for names in described for name in names)]


def of_numbers(values: np.ndarray) -> Numbers:
    """Summarize float64 [N], where NaN is missing. The cuts are values of the column, so frequent ones are exact."""
    known = np.sort(values[~np.isnan(values)])
    cuts = (
        np.unique(np.quantile(known, np.linspace(0, 1, QUANTILES + 1), method="inverted_cdf")) if len(known) else known
    )
    below, at_most = (np.searchsorted(known, cuts, side).tolist() for side in ("left", "right"))
    return Numbers(len(values), len(values) - len(known), cuts.tolist(), below, at_most)


def of_words(values: Iterable[tuple[str | None, int]]) -> Words:
    """Summarize pairs of a word, or None for missing, and its count. The counts of equal words are added."""
    counts: Counter[str | None] = Counter()
    for word, count in values:
        counts[word] += count
    rows, missing = counts.total(), counts.pop(None, 0)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:WORDS]
    return Words(rows, missing, {str(word): count for word, count in top}, counts.total() - sum(n for _, n in top))


def distance(old: Summary, new: Summary) -> Distance | None:
    """The distance between two distributions, 0 to 1. Missing values take part.

    For words it is the total variation distance. For numbers it is the Kolmogorov-Smirnov statistic, with missing
    values below all others. None if one summary is of words and the other of numbers, or if one has no rows.

    The mean distance of two samples of n and m rows from the same distribution is, for numbers,
    sqrt(pi / 2) ln 2 sqrt(1 / n + 1 / m), the mean of Kolmogorov's distribution (Marsaglia, Tsang and Wang, "Evaluating
    Kolmogorov's distribution", Journal of Statistical Software 2003); for words half the sum of
    sqrt(2 / pi p (1 - p) (1 / n + 1 / m)), by the mean deviation of a normal distribution.
    """
    if not (old.rows and new.rows):
        return None
    if isinstance(old, Numbers) and isinstance(new, Numbers):
        return _of_numbers(old, new)
    if isinstance(old, Words) and isinstance(new, Words):
        return _of_words(old, new)
    return None


def dump(statistics: Statistics, path: Path) -> None:
    """Write statistics as JSON, a line for each column. Equal statistics give equal bytes."""
    lines = []
    for name, splits in statistics.items():
        summaries = {split: asdict(summary) for split, summary in splits.items()}
        lines.append(f"{json.dumps(name)}: {json.dumps(summaries, separators=(',', ':'))}")
    Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def load(path: Path) -> Statistics:
    """Read what `dump` wrote; {} before the first release, and for a release from before statistics were kept.

    Raises:
        UserError: the file has other content.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {split: (Numbers if "cuts" in fields else Words)(**fields) for split, fields in splits.items()}
            for name, splits in tree.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            "champion-damaged", f"{path} holds no statistics: restore it with `git checkout {path}`"
        ) from error


def shares(summary: Numbers, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of rows below, and at most, each of `at` [N], interpolated between cuts; missing is below all."""
    if not summary.cuts:
        return (np.full(len(at), summary.missing / summary.rows),) * 2
    cuts = np.repeat(summary.cuts, 2)
    counts = summary.missing + np.stack([summary.below, summary.at_most], axis=1).ravel()
    at_most = np.interp(at, cuts, counts, left=summary.missing)
    below = np.interp(-at, -cuts[::-1], counts[::-1], right=summary.missing)
    return below / summary.rows, at_most / summary.rows


def median(summary: Numbers) -> float:
    """The median of the values that are not missing, rounded to a cut; NaN if all are missing."""
    half = (summary.rows - summary.missing) / 2
    place = int(np.searchsorted(summary.at_most, half))
    return summary.cuts[place] if summary.cuts else math.nan


def common(old: Words, new: Words) -> dict[str, tuple[float, float]]:
    """The shares of each word in both, and of all other words under "": as close as the counts allow."""

    def share(word: str, one: Words, other: Words) -> float:
        if word in one.counts or not one.others:
            return one.counts.get(word, 0) / one.rows
        return min(other.counts[word] / other.rows, min(one.counts.values()) / one.rows)  # rarer than the listed words

    pairs = {word: (share(word, old, new), share(word, new, old)) for word in dict.fromkeys([*old.counts, *new.counts])}
    rest = [
        1 - words.missing / words.rows - sum(pair[i] for pair in pairs.values()) for i, words in enumerate((old, new))
    ]
    return pairs | {"": (max(0.0, rest[0]), max(0.0, rest[1]))}


def _of_numbers(old: Numbers, new: Numbers) -> Distance:
    at = np.union1d(old.cuts, new.cuts)
    missing = np.array([summary.missing / summary.rows for summary in (old, new)])
    was, now = (
        np.concatenate([[share], *shares(summary, at)]) for share, summary in zip(missing, (old, new), strict=True)
    )
    gaps = np.abs(now - was)
    most = int(gaps.argmax())
    chance = math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(1 / old.rows + 1 / new.rows)
    middle = median(old), median(new)
    if 2 * gaps[0] >= gaps[most] or not len(at):
        moved = _change_text("share of missing", *missing)
    elif middle[0] != middle[1]:
        moved = "median {:.6g} -> {:.6g}".format(*middle)
    else:
        place = (most - 1) % len(at)
        moved = _change_text(
            f"share of values {'below' if most <= len(at) else 'up to'} {at[place]:.4g}:", was[most], now[most]
        )
    return Distance(float(gaps[most]), chance, moved)


def _of_words(old: Words, new: Words) -> Distance:
    pairs = {f"share of {word!r}" if word else "share of other words": pair for word, pair in common(old, new).items()}
    pairs["share of missing"] = (old.missing / old.rows, new.missing / new.rows)
    was, now = np.array(list(pairs.values())).T
    pooled = (was * old.rows + now * new.rows) / (old.rows + new.rows)
    spread = np.sqrt(2 / math.pi * pooled * (1 - pooled) * (1 / old.rows + 1 / new.rows))
    most = int(np.abs(now - was).round(9).argmax())  # rounded, so that the last bits do not choose between equal ones
    return Distance(
        float(np.abs(now - was).sum() / 2),
        float(spread.sum() / 2),
        _change_text(list(pairs)[most], was[most], now[most]),
    )


def _change_text(what: str, old: float, new: float) -> str:
    return f"{what} {old:.4g} -> {new:.4g}"
