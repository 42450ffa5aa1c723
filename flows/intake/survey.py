"""Look at every row of a table: what Arrow counts in each column, and a sample of rows spread over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.schema import Column, Schema
from stages.tables import sources
from stages.tables.sources import Reject, Sample

ROWS = 5000  # of the sample, at least, where there are so many
MOST = 2_000_000  # distinct values of a column that are counted
PENDING = 500_000  # counts of chunks that are kept apart


@dataclass
class Counts:
    """What all rows have in one column."""

    missing: int = 0
    running: bool = True  # whether the values are consecutive whole numbers, up or down
    _parts: list[pa.Table] = field(default_factory=list)
    _pending: int = 0
    _last: int | None = None

    @classmethod
    def of(cls, values: Iterable[Any]) -> Counts:
        """The counts of a list of cells, None if missing."""
        counts = cls()
        counts.add(as_array(list(values)))
        return counts

    def add(self, cells: pa.Array) -> None:
        """Count a chunk of cells, which follows those before."""
        self.missing += cells.null_count
        present = cells.drop_null()
        if pa.types.is_dictionary(present.type):
            present = present.dictionary_decode()
        self.running = self.running and self._continues(present)
        counted = pc.value_counts(present)
        part = pa.table({"value": counted.field("values"), "rows": counted.field("counts")})
        self._parts.append(part)
        self._pending += len(part)
        if self._pending > PENDING:
            self._merge()

    @property
    def distinct(self) -> int:
        """The number of distinct values, without missing ones."""
        return len(self._merge())

    @property
    def present(self) -> int:
        """The rows that are not missing."""
        return int(pc.sum(self._merge()["rows"]).as_py() or 0)

    @property
    def rows(self) -> int:
        """All rows."""
        return self.present + self.missing

    @property
    def values(self) -> pa.Array:
        """The distinct values."""
        return self._merge()["value"].combine_chunks()

    @property
    def numbers(self) -> np.ndarray:
        """The rows of each of `values`."""
        return np.asarray(self._merge()["rows"].to_numpy())

    def words(self) -> dict[str, int]:
        """The distinct values as texts, with their rows."""
        table = self._merge()
        return {str(value): rows for value, rows in zip(*(column.to_pylist() for column in table), strict=True)}

    def _continues(self, present: pa.Array) -> bool:
        try:
            numbers = np.asarray(present.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return False
        before = [] if self._last is None else [self._last]
        steps = np.diff(np.concatenate([np.array(before, np.int64), numbers]))
        self._last = int(numbers[-1]) if len(numbers) else self._last
        return bool((np.abs(steps) == 1).all())

    def _merge(self) -> pa.Table:
        """All parts as one. Of more than MOST distinct values, the first are kept."""
        if len(self._parts) != 1:
            types = {part.schema.field("value").type for part in self._parts}
            parts = self._parts if len(types) == 1 else [_as_texts(part) for part in self._parts]
            joined = (
                pa.concat_tables(parts) if parts else pa.table({"value": pa.array([], pa.string()), "rows": [0][:0]})
            )
            summed = joined.group_by("value", use_threads=False).aggregate([("rows", "sum")])
            self._parts = [pa.table({"value": summed["value"], "rows": summed["rows_sum"]})[:MOST]]
        self._pending = 0
        return self._parts[0]


@dataclass
class Survey:
    """A table that was read to its end. `cells`: the sample, by column, None if missing."""

    cells: dict[str, list[Any]]
    counts: dict[str, Counts]
    rows: int = 0
    rejected: int = 0
    first_reject: Reject | None = None
    stride: int = 1  # each such row is in the sample


def look(path: Path, source: Any, options: Any, names: Sequence[str]) -> Survey:
    """Read all rows of the columns `names`."""
    anything = Schema(tuple(Column(name, "category") for name in names[:-1]), Column(names[-1], "target_class"))
    survey = Survey({name: [] for name in names}, {name: Counts() for name in names})
    for chunk in source.chunks(path, anything, options):
        columns, rejects = _read(source, chunk, names)
        if rejects and survey.first_reject is None:
            survey.first_reject = rejects[0]
        survey.rejected += len(rejects)
        _add(survey, columns)
    return survey


def as_array(values: list[Any]) -> pa.Array:
    """Cells as an array, of text if they have several types."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _read(source: Any, chunk: Any, names: Sequence[str]) -> tuple[dict[str, pa.Array], list[Reject]]:
    """The columns of a chunk, and the rows that cannot be read."""
    if isinstance(source, sources.Columnar):
        try:
            found = source.read_columns(chunk)
            return {name: found.values[name] for name in names}, found.rejects
        except ValueError:  # a row is faulty: read them one by one
            pass
    items: Iterator[Sample | Reject] = source.read(chunk)
    rows, rejects = [], []
    for item in items:
        if isinstance(item, Sample):
            rows.append(item.values)
        else:
            rejects.append(item)
    return {name: as_array([row[name] for row in rows]) for name in names}, rejects


def _add(survey: Survey, columns: dict[str, pa.Array]) -> None:
    count = len(next(iter(columns.values())))
    first = -survey.rows % survey.stride
    places = pa.array(np.arange(first, count, survey.stride))
    for name, cells in columns.items():
        survey.counts[name].add(cells)
        survey.cells[name] += cells.take(places).to_pylist()
    survey.rows += count
    while len(next(iter(survey.cells.values()))) > 2 * ROWS:
        survey.stride *= 2
        survey.cells = {name: cells[::2] for name, cells in survey.cells.items()}


def _as_texts(part: pa.Table) -> pa.Table:
    texts = [str(value) for value in part["value"].to_pylist()]
    return pa.table({"value": pa.array(texts, pa.string()), "rows": part["rows"]})
