"""A source's chunk as rows of the table: raw values by column, the id and facts of each row, and what is rejected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stages.schema import Column, Schema, kind, target_kind
from stages.tables import arrow, sources
from stages.tables.sources import Reject, Sample

KEPT = ("group", "time")  # the splits for which prepare needs the column's cells

_OWN, _SOURCE = 3, 2  # the number of the table's own columns, and the position of `_source` among them
_FACTS = {"i": pa.int64(), "f": pa.float64(), "O": pa.string()}  # by the kind of numpy's dtype

Row = tuple[Any, ...]  # id, split, source, features, target: the table's columns before the facts

Batch = tuple[pa.RecordBatch, list[Reject]]


@dataclass(frozen=True)
class Layout:
    """What the table holds of a sample: the schema's columns, the cells to split `by`, and the texts to `keep`."""

    schema: Schema
    by: str = "hash"
    column: str = "none"  # that it is split by
    keep: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns outside the schema that are stored as texts."""
        return (*([self.column] if self.by in KEPT else []), *self.keep)

    @property
    def modules(self) -> dict[str, Any]:
        """Column -> module of its kind, for the features and the target."""
        modules: dict[str, Any] = {column.name: kind(column.kind) for column in self.schema.features}
        return modules | {self.schema.target.name: target_kind(self.schema.target.kind)}

    @property
    def has_facts(self) -> bool:
        """Whether a kind computes facts, which takes Python as many steps as there are values."""
        return any(kind(column.kind).facts(()) for column in self.schema.features)

    def arrow(self) -> pa.Schema:
        """The table's columns: its own, raw values, what prepare splits by, what is kept, and facts."""
        empty = _facts([()] * len(self.schema.features), self.schema.features)
        facts = {name: _FACTS[values.dtype.kind] for name, values in empty.items()}
        own = {"_id": pa.string(), "_split": pa.string(), "_source": pa.string()}
        raw = {name: arrow.TYPES[module.RAW] for name, module in self.modules.items()}
        more = dict.fromkeys([*(["_split_by"] if self.by in KEPT else []), *self.keep], pa.string())
        return pa.schema(own | raw | more | facts)


def encode(chunk: Any, format: str, layout: Layout) -> Batch:
    """A source's chunk as rows of the table, and the rejects."""
    source = sources.source(format)
    if isinstance(source, sources.Columnar):
        with contextlib.suppress(ValueError):  # `by_row` finds the row at fault
            return by_column(source.read_columns(chunk), layout)
    return by_row(source.read(chunk), layout)


def by_column(found: sources.Columns, layout: Layout) -> Batch:
    """The same rows and rejects as `by_row`, converted by column.

    Raises:
        ValueError: a kind cannot compute the facts of a row.
    """
    schema, modules = layout.schema, layout.modules
    cells: list[pa.Array] = []
    faults: dict[int, str] = {}
    for name, module in modules.items():
        values, wrong = arrow.raw(found.values[name], module)
        cells.append(values)
        for row, reason in wrong.items():
            faults.setdefault(row, f"{name}: {reason}" if len(modules) > 2 else reason)
    places = found.sources
    split = pa.repeat(arrow.scalar(found.split), len(places))
    cells += [arrow.words(found.values[name], _text) for name in layout.texts]
    if layout.by == "column":
        split = arrow.words(found.values[layout.column], _official)
    rejects = [Reject(places[row].as_py(), faults[row]) for row in sorted(faults)]
    if faults:
        valid = arrow.array(np.delete(np.arange(len(places)), list(faults)), pa.int64())
        places, split, *cells = (values.take(valid) for values in (places, split, *cells))
    features = zip(schema.features, cells, strict=False)  # most kinds have no facts, and need no list
    raw = (values.to_pylist() if kind(column.kind).facts(()) else () for column, values in features)
    table = layout.arrow()
    facts = [arrow.array(values, table.field(name).type) for name, values in _facts(raw, schema.features).items()]
    ids = arrow.identities(cells[: len(schema.features)])
    return pa.RecordBatch.from_arrays([ids, split, places, *cells, *facts], schema=table), found.rejects + rejects


def by_row(samples: Iterable[Sample | Reject], layout: Layout) -> Batch:
    """Convert samples one by one, so that of a picture only its raw value is in memory."""
    schema = layout.schema
    in_schema = [(name, module.raw) for name, module in layout.modules.items()]
    to_raw = [*in_schema, *((name, _text) for name in layout.texts)]
    rows: list[Row] = []
    rejects: list[Reject] = []
    for sample in samples:
        if isinstance(sample, Reject):
            rejects.append(sample)
            continue
        try:
            values = [raw(sample.values.get(name)) for name, raw in to_raw]
            split = _official(sample.values.get(layout.column)) if layout.by == "column" else sample.split
            rows.append((arrow.identity(values[: len(schema.features)]), split, sample.source, *values))
        except OSError as error:
            rejects.append(Reject(sample.source, f"cannot be read: {error.strerror}"))
        except ValueError as error:
            rejects.append(Reject(sample.source, _named_fault(sample.values, in_schema) or str(error)))
    rows, facts, faulty = _with_facts(rows, schema.features)
    cells = [*(zip(*rows, strict=True) if rows else [()] * (_OWN + len(to_raw))), *facts.values()]
    table = layout.arrow()
    arrays = [arrow.array(values, field.type) for values, field in zip(cells, table, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=table), rejects + faulty


def _named_fault(values: dict[str, Any], to_raw: list[tuple[str, Callable[[Any], Any]]]) -> str:
    """The first error message, with the name of its column; "" if there is only one feature."""
    for name, raw in to_raw if len(to_raw) > 2 else []:
        try:
            raw(values.get(name))
        except ValueError as error:
            return f"{name}: {error}"
    return ""


def _text(value: Any) -> str | None:
    """A cell of a column outside the schema, as text; None: blank and NaN are missing."""
    return None if value is None or value != value or not str(value).strip() else str(value).strip()


def _official(cell: Any) -> str:
    """The split that a cell names, or its text: validate refuses a table with any other word."""
    word = _text(cell) or "(blank)"
    return sources.split_named(word) or word


def _with_facts(rows: list[Row], features: tuple[Column, ...]) -> tuple[list[Row], dict[str, np.ndarray], list[Reject]]:
    """The rows whose facts can be computed, their facts, and rejects for the others."""
    try:
        return rows, _facts(_features(rows, features), features), []
    except ValueError:
        kept, rejects, facts = [], [], [_facts(_features([], features), features)]
    for row in rows:
        try:
            facts.append(_facts(_features([row], features), features))
            kept.append(row)
        except ValueError as error:
            rejects.append(Reject(row[_SOURCE], str(error)))
    return kept, {name: np.concatenate([row[name] for row in facts]) for name in facts[0]}, rejects


def _facts(cells: Iterable[Iterable[Any]], features: tuple[Column, ...]) -> dict[str, np.ndarray]:
    """Facts {column.fact: [N]} of the raw values of each feature."""
    return {
        f"{column.name}.{fact}": values
        for column, raw in zip(features, cells, strict=True)
        for fact, values in kind(column.kind).facts(raw).items()
    }


def _features(rows: list[Row], features: tuple[Column, ...]) -> Iterator[list[Any]]:
    return ([row[place] for row in rows] for place in range(_OWN, _OWN + len(features)))
