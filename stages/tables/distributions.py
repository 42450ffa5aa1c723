"""What a column holds, small enough to keep: how its values are distributed; and how far apart two columns are."""

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

QUANTILES = 64  # parts of about equally many values, between which a number's cuts lie
WORDS = 50  # the most frequent ones, which are counted each; the rest together


@dataclass(frozen=True)
class Numbers:
    """Of `rows`, with `missing` ones among them, how many are `below` and `at_most` each of the ascending `cuts`."""

    rows: int
    missing: int
    cuts: list[float]
    below: list[int]
    at_most: list[int]


@dataclass(frozen=True)
class Words:
    """Of `rows`, with `missing` ones among them, how many hold each of the most frequent words, and `others`."""

    rows: int
    missing: int
    counts: dict[str, int]
    others: int


Summary = Numbers | Words
Statistics = Mapping[str, Mapping[str, Summary]]  # column or fact, split


@dataclass(frozen=True)
class Distance:
    """`value`: see `distance`; `chance`: what it is on average where both are of one distribution.

    `moved`: what changed most, and how.
    """

    value: float
    chance: float
    moved: str


def described(schema: Schema) -> list[str]:
    """The table's columns that tell what a sample is: the target, and of each feature the facts or else the values."""
    facts = {column.name: kind(column.kind).facts(()) for column in schema.features}
    described = [[f"{name}.{fact}" for fact in values] or [name] for name, values in facts.items()]
    return [schema.target.name, *(name for names in described for name in names)]


def of_numbers(values: np.ndarray) -> Numbers:
    """Of float64 [N], where NaN is missing. The cuts are values that there are, so that frequent ones are exact."""
    known = np.sort(values[~np.isnan(values)])
    cuts = (
        np.unique(np.quantile(known, np.linspace(0, 1, QUANTILES + 1), method="inverted_cdf")) if len(known) else known
    )
    below, at_most = (np.searchsorted(known, cuts, side).tolist() for side in ("left", "right"))
    return Numbers(len(values), len(values) - len(known), cuts.tolist(), below, at_most)


def of_words(values: Iterable[tuple[str | None, int]]) -> Words:
    """Of words, or None, each with how often it occurs; a word may come several times."""
    counts: Counter[str | None] = Counter()
    for word, count in values:
        counts[word] += count
    rows, missing = counts.total(), counts.pop(None, 0)
    often = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:WORDS]
    return Words(rows, missing, {str(word): count for word, count in often}, counts.total() - sum(n for _, n in often))


def distance(old: Summary, new: Summary) -> Distance | None:
    """How much larger the share of rows can be in one than in the other, 0 to 1, where a missing value is one as well.

    For words: of any set of them, the total variation distance. For numbers: of those up to any value, the
    Kolmogorov-Smirnov statistic, with missing ones below all others. None where one holds words and the other numbers,
    or no rows.

    Chance makes of samples of n and m rows on average, for numbers, sqrt(pi / 2) ln 2 sqrt(1 / n + 1 / m), the mean of
    Kolmogorov's distribution (Marsaglia, Tsang and Wang, "Evaluating Kolmogorov's distribution", Journal of Statistical
    Software 2003); for words half the sum of sqrt(2 / pi p (1 - p) (1 / n + 1 / m)), by a normal's mean deviation.
    """
    if not (old.rows and new.rows):
        return None
    if isinstance(old, Numbers) and isinstance(new, Numbers):
        return _of_numbers(old, new)
    if isinstance(old, Words) and isinstance(new, Words):
        return _of_words(old, new)
    return None


def dump(statistics: Statistics, path: Path) -> None:
    """Write them, a line for each column; equal ones give equal bytes."""
    lines = []
    for name, splits in statistics.items():
        summaries = {split: asdict(summary) for split, summary in splits.items()}
        lines.append(f"{json.dumps(name)}: {json.dumps(summaries, separators=(',', ':'))}")
    Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def load(path: Path) -> Statistics:
    """What `dump` wrote; {} before the first release, and of one that is older than this.

    Raises:
        UserError: the file holds something else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {split: (Numbers if "cuts" in fields else Words)(**fields) for split, fields in splits.items()}
            for name, splits in tree.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no statistics: restore it with `git checkout {path}`") from error


def shares(summary: Numbers, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of rows below, and at most, each of `at` [N], with the missing ones; they rise evenly between cuts."""
    if not summary.cuts:
        return (np.full(len(at), summary.missing / summary.rows),) * 2
    cuts = np.repeat(summary.cuts, 2)
    counts = summary.missing + np.stack([summary.below, summary.at_most], axis=1).ravel()
    at_most = np.interp(at, cuts, counts, left=summary.missing)
    below = np.interp(-at, -cuts[::-1], counts[::-1], right=summary.missing)
    return below / summary.rows, at_most / summary.rows


def median(summary: Numbers) -> float:
    """Of what is not missing, to a cut; NaN where all is."""
    half = (summary.rows - summary.missing) / 2
    place = int(np.searchsorted(summary.at_most, half))
    return summary.cuts[place] if summary.cuts else math.nan


def common(old: Words, new: Words) -> dict[str, tuple[float, float]]:
    """The shares of each word in both, and of all others under "": as near to each other as their counts allow."""

    def share(word: str, one: Words, other: Words) -> float:
        if word in one.counts or not one.others:
            return one.counts.get(word, 0) / one.rows
        return min(other.counts[word] / other.rows, min(one.counts.values()) / one.rows)  # rarer than those it lists

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
    most = int(np.abs(now - was).round(9).argmax())  # of equal ones the first, whatever their last bits
    return Distance(
        float(np.abs(now - was).sum() / 2),
        float(spread.sum() / 2),
        _change_text(list(pairs)[most], was[most], now[most]),
    )


def _change_text(what: str, old: float, new: float) -> str:
    return f"{what} {old:.4g} -> {new:.4g}"
