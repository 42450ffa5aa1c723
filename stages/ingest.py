"""Read raw files of any format into one table with a row for each sample, and list what cannot be read as rejects."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import contextlib
import csv
import functools
import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.core import command
from stages.core.children import die_with_parent
from stages.core.errors import UserError
from stages.core.files import replacing
from stages.core.progress import counting
from stages.schema import Column, Schema, kind, target_kind
from stages.settings import params, sections
from stages.settings.split import SPLITS
from stages.tables import arrow, overlooked, sources
from stages.tables.sources import Reject, Sample

GROUP_ROWS = 8192  # a row group ends with the chunk that passes this or GROUP_BYTES
GROUP_BYTES = 64 << 20

_OWN, _SOURCE = 3, 2  # the number of the table's own columns, and the position of `_source` among them
KEPT = ("group", "time")  # the splits for which prepare needs the column's cells
_FACTS = {"i": pa.int64(), "f": pa.float64(), "O": pa.string()}  # by the kind of numpy's dtype


Row = tuple[Any, ...]  # id, split, source, features, target: the table's columns before the facts

Batch = tuple[pa.RecordBatch, list[Reject]]


class Tally(NamedTuple):
    """The numbers of rows and of rejects."""

    rows: int
    rejects: int
    reasons: tuple[Reject, ...]  # the first few


def main(data: Path, table: Path, rejects: Path) -> None:
    """Read every sample in DATA into TABLE (Parquet), and list in REJECTS (CSV) what could not be read."""
    parameters = params.load("ingest")
    schema = sections.declared(parameters.schema.features, parameters.schema.target)
    started = time.monotonic()
    with replacing(table) as rows, replacing(rejects) as faults:
        by = parameters.split.by, parameters.split.column
        keep = tuple(parameters.schema.keep)
        tally = ingest(data, parameters.data.format, parameters.data.options, schema, rows, faults, _cores(), *by, keep)
    rate = tally.rows / (time.monotonic() - started)
    print(f"{data}: {tally.rows:,} rows, {tally.rejects:,} rejects, {rate:,.0f} rows/s")
    for note in overlooked.notes(data, parameters.data.format):
        print(f"  {note}")


def ingest(
    data: Path,
    format: str,
    options: dict[str, Any],
    schema: Schema,
    table: Path,
    rejects: Path,
    workers: int,
    by: str = "hash",
    column: str = "none",
    keep: tuple[str, ...] = (),
) -> Tally:
    """Write `table` and `rejects` from the samples at `data`. Their bytes do not depend on `workers`.

    If prepare needs the cells of `column` to split `by` it, they are in the table as `_split_by`. The columns to `keep`
    are in the table as texts.

    Raises:
        UserError: `data` is not of the format, or no sample can be read.
    """
    if not data.exists():
        raise UserError("data-not-found", f"{data} does not exist: bring your data there with `millrace data add`")
    source = sources.source(format)
    form = sections.options(source, options, "data.options")
    wanted = schema
    if SPLITS[by]:
        sources.require_column(column, source.columns(data, form), f"{data} ({format})", "split.column")
        wanted = sources.with_column(schema, column)
    for name in keep:
        sources.require_column(name, source.columns(data, form), f"{data} ({format})", "schema.keep")
        wanted = sources.with_column(wanted, name)
    chunks = source.chunks(data, wanted, form)
    task = functools.partial(encode, format=format, schema=schema, by=by, column=column, keep=keep)
    encoded = _in_order(task, chunks, workers)
    tally = Tally(0, 0, ())
    with (
        open(rejects, "w", newline="", encoding="utf-8", errors="backslashreplace") as opened,
        _Table(table, arrow_schema(schema, by, keep)) as rows,
        counting("samples") as count,
    ):
        faults = csv.writer(opened, lineterminator="\n")
        faults.writerow(Reject._fields)
        for batch, rejected in encoded:
            rows.add(batch)
            faults.writerows(rejected)
            count(len(batch) + len(rejected))
            tally = Tally(tally.rows + len(batch), tally.rejects + len(rejected), (*tally.reasons, *rejected)[:3])
    if not tally.rows:
        raise UserError("data-no-rows", f"no sample in {data} can be read: {_reasons(tally)}")
    return tally


def encode(
    chunk: Any, format: str, schema: Schema, by: str = "hash", column: str = "none", keep: tuple[str, ...] = ()
) -> Batch:
    """A source's chunk as rows of the table, and the rejects."""
    source = sources.source(format)
    if isinstance(source, sources.Columnar):
        with contextlib.suppress(ValueError):  # `_by_row` finds the row at fault
            return _by_column(source.read_columns(chunk), schema, by, column, keep)
    return _by_row(source.read(chunk), schema, by, column, keep)


def _by_column(
    found: sources.Columns, schema: Schema, by: str = "hash", column: str = "none", keep: tuple[str, ...] = ()
) -> Batch:
    """The same rows and rejects as `_by_row`, converted by column.

    Raises:
        ValueError: a kind cannot compute the facts of a row.
    """
    modules = _modules(schema)
    cells: list[pa.Array] = []
    faults: dict[int, str] = {}
    for name, module in modules.items():
        values, wrong = arrow.raw(found.values[name], module)
        cells.append(values)
        for row, reason in wrong.items():
            faults.setdefault(row, f"{name}: {reason}" if len(modules) > 2 else reason)
    places = found.sources
    split = pa.repeat(arrow.scalar(found.split), len(places))
    cells += [arrow.words(found.values[name], _text) for name in (*([column] if by in KEPT else []), *keep)]
    if by == "column":
        split = arrow.words(found.values[column], _official)
    rejects = [Reject(places[row].as_py(), faults[row]) for row in sorted(faults)]
    if faults:
        valid = arrow.array(np.delete(np.arange(len(places)), list(faults)), pa.int64())
        places, split, *cells = (values.take(valid) for values in (places, split, *cells))
    features = zip(schema.features, cells, strict=False)  # most kinds have no facts, and need no list
    raw = (values.to_pylist() if kind(column.kind).facts(()) else () for column, values in features)
    table = arrow_schema(schema, by, keep)
    facts = [arrow.array(values, table.field(name).type) for name, values in _facts(raw, schema.features).items()]
    ids = arrow.identities(cells[: len(schema.features)])
    return pa.RecordBatch.from_arrays([ids, split, places, *cells, *facts], schema=table), found.rejects + rejects


def _modules(schema: Schema) -> dict[str, Any]:
    """Column -> module of its kind, for the features and the target."""
    modules: dict[str, Any] = {column.name: kind(column.kind) for column in schema.features}
    return modules | {schema.target.name: target_kind(schema.target.kind)}


def _by_row(
    samples: Iterable[Sample | Reject],
    schema: Schema,
    by: str = "hash",
    column: str = "none",
    keep: tuple[str, ...] = (),
) -> Batch:
    """Convert samples one by one, so that of a picture only its raw value is in memory."""
    in_schema = [(name, module.raw) for name, module in _modules(schema).items()]
    to_raw = [*in_schema, *((name, _text) for name in (*([column] if by in KEPT else []), *keep))]
    rows: list[Row] = []
    rejects: list[Reject] = []
    for sample in samples:
        if isinstance(sample, Reject):
            rejects.append(sample)
            continue
        try:
            values = [raw(sample.values.get(name)) for name, raw in to_raw]
            split = _official(sample.values.get(column)) if by == "column" else sample.split
            rows.append((arrow.identity(values[: len(schema.features)]), split, sample.source, *values))
        except OSError as error:
            rejects.append(Reject(sample.source, f"cannot be read: {error.strerror}"))
        except ValueError as error:
            rejects.append(Reject(sample.source, _named_fault(sample.values, in_schema) or str(error)))
    rows, facts, faulty = _with_facts(rows, schema.features)
    cells = [*(zip(*rows, strict=True) if rows else [()] * (_OWN + len(to_raw))), *facts.values()]
    table = arrow_schema(schema, by, keep)
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


def arrow_schema(schema: Schema, by: str = "hash", keep: tuple[str, ...] = ()) -> pa.Schema:
    """The table's columns: its own, raw values, what prepare splits by, what is kept, and facts about the values."""
    raw = {column.name: kind(column.kind).RAW for column in schema.features}
    raw[schema.target.name] = target_kind(schema.target.kind).RAW
    empty = _facts([()] * len(schema.features), schema.features)
    facts = {name: _FACTS[values.dtype.kind] for name, values in empty.items()}
    own = {"_id": pa.string(), "_split": pa.string(), "_source": pa.string()}
    more = dict.fromkeys([*(["_split_by"] if by in KEPT else []), *keep], pa.string())
    return pa.schema(own | {name: arrow.TYPES[stored] for name, stored in raw.items()} | more | facts)


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


def _reasons(tally: Tally) -> str:
    reasons = [f"{source} {reason}" for source, reason in tally.reasons]
    if tally.rejects > len(reasons):
        reasons.append(f"{tally.rejects - len(reasons):,} more")
    return "; ".join(reasons) or "it holds none"


class _Table:
    """A Parquet file, written in row groups of bounded rows and bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        blobs = {field.name for field in schema if field.type == pa.binary()}
        # columns of nearly distinct values gain nothing from a dictionary
        distinct = blobs | {"_id", "_source"} | {field.name for field in schema if field.type == pa.float64()}
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={name: "none" if name in blobs else "zstd" for name in schema.names},
            use_dictionary=[name for name in schema.names if name not in distinct],
            write_statistics=[name for name in schema.names if name not in blobs],
        )
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write()
        self._writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self._rows:
            group = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(group, row_group_size=self._rows)
        self._batches, self._rows, self._bytes = [], 0, 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(task: Callable[[Any], Any], chunks: Iterator[Any], workers: int) -> Iterator[Any]:
    """Yield `task` of every chunk in order, computed by processes; only a few chunks are in memory at a time."""
    fork = sys.platform == "linux"  # safe, as no threads run yet, and it saves each worker the imports
    context = multiprocessing.get_context("fork" if fork else None)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
    pending: deque[Future[Any]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(task, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "data-memory",
            "a process that reads samples was killed, most likely because memory ran out: close other programs",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Set up a worker: it dies with its parent, leaves Ctrl-C to it, and reports faults only as rejects."""
    die_with_parent()
    gc.freeze()  # keep the garbage collector from scanning the parent's objects
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.disable()


if __name__ == "__main__":
    command.run(main)
