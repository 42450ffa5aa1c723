"""Which test rows belong together: by a column of the table, a fact about one, or the folder that samples lie in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from stages.core.errors import UserError
from stages.core.words import nearest
from stages.tables import table

FOLDER, MISSING, OTHERS = "folder", "(missing)", "(any other)"
BINS = 4  # unless said
MOST = 50  # values of one column; the rows of rarer ones are a slice together

Cells = np.ndarray | list[str | None]  # numbers or texts [N]; NaN and None are missing


class Cut(NamedTuple):
    """The rows of one slice: `at`, their places among those that were cut, int64 [n], ascending.

    `span`: the least and the largest of them, where they are numbers.
    """

    value: str
    at: np.ndarray
    span: tuple[float, float] | None = None


def read(source: Path, by: str, rows: np.ndarray, as_numbers: bool = False) -> Cells:
    """What the table has under `by` at `rows` [N], which ascend; texts perhaps as the numbers that they hold.

    Raises:
        UserError: it has no such column.
    """
    known = parquet.read_schema(source)
    if by == FOLDER and by not in known.names:
        places = (PurePosixPath(place) for chunk in table.Values(source, "_source", rows) for place in chunk)
        return [place.parent.name or None for place in places]
    if by not in known.names:
        near = nearest(by, [name for name in known.names if not name.startswith("_")])
        raise UserError(f"params.yaml: gate.slices.{by}: the table has no such column{near}")
    cells = [cell for chunk in table.Values(source, by, rows) for cell in chunk]
    if known.field(by).type != pa.string():
        return np.array(cells, np.float64)
    return np.array([_number(cell) for cell in cells]) if as_numbers else cells


def cut(cells: Cells, bins: int) -> list[Cut]:
    """Every one of cells [N] in one slice; no slice at all where all are missing."""
    numbers = isinstance(cells, np.ndarray)
    there = np.isfinite(cells) if numbers else np.array([cell is not None for cell in cells], bool)
    if not there.any():
        return []
    at, lacking = np.flatnonzero(there), np.flatnonzero(~there)
    found = _by_number(cells[at], bins) if numbers else _by_value([str(cells[i]) for i in at])
    rest = [Cut(MISSING, lacking)] if len(lacking) else []
    return [*(each._replace(at=at[each.at]) for each in found), *rest]


def vanished(before: Iterable[Mapping[str, Any]], by: str, cells: Cells) -> list[str]:
    """Of the slices that an earlier verdict lists, the values of those by a column that none of its cells [N] has."""
    numbers = isinstance(cells, np.ndarray)
    own = [one for one in before if one["by"] == by and one["value"] not in (MISSING, OTHERS)]
    known = [one for one in own if (one["span"] is not None) == numbers]
    if numbers:
        return [one["value"] for one in known if not np.any((cells >= one["span"][0]) & (cells <= one["span"][1]))]
    there = set(cells)
    return [one["value"] for one in known if one["value"] not in there]


def _number(text: str | None) -> float:
    """NaN where it holds none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _by_value(cells: Sequence[str]) -> list[Cut]:
    """A slice for each of texts [N], in order; where there are too many, for each of the commonest."""
    texts, own, counts = np.unique(np.array(cells, object), return_inverse=True, return_counts=True)
    common = np.sort(np.argsort(-counts, kind="stable")[:MOST])
    rest = np.flatnonzero(~np.isin(own, common))
    found = [Cut(str(texts[code]), np.flatnonzero(own == code)) for code in common]
    return [*found, Cut(OTHERS, rest)] if len(rest) else found


def _by_number(cells: np.ndarray, bins: int) -> list[Cut]:
    """At most `bins` slices of numbers [N], ascending and of about equal size; equal numbers stay together."""
    ends = np.unique(np.quantile(cells, np.arange(1, bins) / bins, method="lower"))
    own = np.searchsorted(ends, cells, side="left")
    parts = [np.flatnonzero(own == code) for code in np.unique(own)]
    spans = [(float(cells[at].min()), float(cells[at].max())) for at in parts]
    digits = next(few for few in range(3, 18) if few == 17 or _told_apart(spans, few))
    return [
        Cut(" to ".join(dict.fromkeys(_rounded(end, digits) for end in span)), at, span)
        for at, span in zip(parts, spans, strict=True)
    ]


def _told_apart(spans: Sequence[tuple[float, float]], digits: int) -> bool:
    """Whether so many digits tell where one ends from where the next begins."""
    return all(_rounded(one[1], digits) != _rounded(next_[0], digits) for one, next_ in pairwise(spans))


def _rounded(number: float, digits: int) -> str:
    """As people write it, with so many digits that count."""
    return f"{float(f'{number:.{digits}g}'):.{max(digits, 15)}g}"
