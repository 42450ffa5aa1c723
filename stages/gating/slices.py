"""Cut the test rows into slices: by a column of the table, by a fact about one, or by the samples' folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stages.core.errors import UserError
from stages.core.words import nearest
from stages.tables import table

FOLDER, MISSING, OTHERS = "folder", "(missing)", "(any other)"
BINS = 4  # if params give no other number
MOST = 50  # slices of one column; the rows of its rarer values are one slice

Cells = np.ndarray | list[str | None]  # numbers or texts [N]; NaN and None are missing


class Cut(NamedTuple):
    """The rows of one slice: `at`, their positions among the rows that were cut, int64 [n], ascending.

    `span`: the smallest and the largest value, of numbers.
    """

    value: str
    at: np.ndarray
    span: tuple[float, float] | None = None


def read(source: Path, by: str, rows: np.ndarray, as_numbers: bool = False) -> Cells:
    """The table's cells in the column `by` at ascending `rows` [N]. `as_numbers`: parse texts as numbers.

    Raises:
        UserError: the table has no such column.
    """
    columns = parquet.read_schema(source)
    if by == FOLDER and by not in columns.names:
        places = (PurePosixPath(place) for chunk in table.Values(source, "_source", rows) for place in chunk)
        return [place.parent.name or None for place in places]
    if by not in columns.names:
        near = nearest(by, [name for name in columns.names if not name.startswith("_")])
        raise UserError("params-unknown-column", f"params.yaml: gate.slices.{by}: the table has no such column{near}")
    cells = [cell for chunk in table.Values(source, by, rows) for cell in chunk]
    if columns.field(by).type != pa.string():
        return np.array(cells, np.float64)
    return np.array([_number(cell) for cell in cells]) if as_numbers else cells


def cut(cells: Cells, bins: int) -> list[Cut]:
    """Put each of cells [N] into one slice; return no slice if all are missing."""
    numbers = cells if isinstance(cells, np.ndarray) else None
    present = np.array([cell is not None for cell in cells], bool) if numbers is None else np.isfinite(numbers)
    if not present.any():
        return []
    at, missing = np.flatnonzero(present), np.flatnonzero(~present)
    cuts = _by_value([str(cells[i]) for i in at]) if numbers is None else _by_number(numbers[at], bins)
    rest = [Cut(MISSING, missing)] if len(missing) else []
    return [*(cut._replace(at=at[cut.at]) for cut in cuts), *rest]


def vanished(before: Iterable[Mapping[str, Any]], by: str, cells: Cells) -> list[str]:
    """The values of the slices by one column that an earlier verdict lists and that none of its cells [N] has now."""
    numbers = isinstance(cells, np.ndarray)
    listed = [slice_ for slice_ in before if slice_["by"] == by and slice_["value"] not in (MISSING, OTHERS)]
    listed = [slice_ for slice_ in listed if (slice_["span"] is not None) == numbers]
    if numbers:
        spans = {slice_["value"]: slice_["span"] for slice_ in listed}
        return [value for value, (low, high) in spans.items() if not np.any((cells >= low) & (cells <= high))]
    present = set(cells)
    return [slice_["value"] for slice_ in listed if slice_["value"] not in present]


def _number(text: str | None) -> float:
    """Parse a number; NaN if the text is not one."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _by_value(cells: Sequence[str]) -> list[Cut]:
    """A slice for each value of texts [N], sorted; if there are too many, for each of the most frequent."""
    texts, codes, counts = np.unique(np.array(cells, object), return_inverse=True, return_counts=True)
    common = np.sort(np.argsort(-counts, kind="stable")[:MOST])
    rest = np.flatnonzero(~np.isin(codes, common))
    cuts = [Cut(str(texts[code]), np.flatnonzero(codes == code)) for code in common]
    return [*cuts, Cut(OTHERS, rest)] if len(rest) else cuts


def _by_number(cells: np.ndarray, bins: int) -> list[Cut]:
    """At most `bins` slices of numbers [N], ascending and of about equal size; equal numbers share a slice."""
    ends = np.unique(np.quantile(cells, np.arange(1, bins) / bins, method="lower"))
    codes = np.searchsorted(ends, cells, side="left")
    parts = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    spans = [(float(cells[at].min()), float(cells[at].max())) for at in parts]
    digits = next(count for count in range(3, 18) if count == 17 or _are_distinct(spans, count))
    return [
        Cut(" to ".join(dict.fromkeys(_rounded(end, digits) for end in span)), at, span)
        for at, span in zip(parts, spans, strict=True)
    ]


def _are_distinct(spans: Sequence[tuple[float, float]], digits: int) -> bool:
    """Whether the end of each span differs from the start of the next, rounded to so many significant digits."""
    return all(_rounded(span[1], digits) != _rounded(next_[0], digits) for span, next_ in pairwise(spans))


def _rounded(number: float, digits: int) -> str:
    """Round to significant digits and write without an exponent where possible."""
    return f"{float(f'{number:.{digits}g}'):.{max(digits, 15)}g}"
