"""Turn command-line values, JSON objects, tables and folders into rows, each with the place that it comes from."""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from serving.client.model_info import Row, Served
from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables import sources
from stages.tables.sources import Reject, delimited

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".data", ".parquet", ".pq", ".json", ".jsonl", ".ndjson")


class Input(NamedTuple):
    """A row to predict, or the reason it was rejected."""

    place: str  # the value on the command line, a file, or a file and the number of the row
    row: Row
    fault: str = ""


@dataclass(frozen=True)
class TableFormat:
    """How a project's tables are written: its `data.format`, and the Options of that source."""

    format: str = ""
    options: Any = None


def rows(values: Sequence[str], served: Served, table_format: TableFormat) -> Iterator[Input]:
    """Yield the rows of command-line values.

    Args:
        values: JSON objects, tables, folders of files, or values of the model's only column.
        served: the model.
        table_format: how the project's tables are written.

    Raises:
        UserError: a single value is given for several columns, or a file is not a table of such rows.
    """
    names = list(served.inputs)
    for value in values:
        path = Path(value)
        if value.lstrip().startswith("{"):
            yield _object(value)
        elif format := _format(path):
            yield from table(path, format, served, table_format)
        elif path.is_dir() and (column := _file_column(served)):
            yield from folder(path, column)
        elif value.lower().endswith(ENDINGS):
            raise UserError("predict-no-file", f"{value} cannot be read: there is no such file")
        elif len(names) == 1:
            yield Input(value, {names[0]: value})
        else:
            first = ", ".join(f'"{name}": ...' for name in names[:3])
            raise UserError(
                "predict-single-value",
                f"{value}: this model takes {len(names)} columns: give '{{{first}}}' or a table, such as .csv",
            )


def table(path: Path, format: str, served: Served, table_format: TableFormat) -> Iterator[Input]:
    """Yield the rows of a table, read as in training, without the columns that the model does not take.

    Raises:
        UserError: the table cannot be read, or a column is missing that is not optional.
    """
    source = sources.source(format)
    options = table_format.options if format == table_format.format else source.Options()
    if isinstance(options, delimited.Options) and options.columns:
        options = _columns(path, options, served)
    columns = source.columns(path, options)
    present = tuple(column for column in served.schema.features if column.name in columns)
    if not present:
        raise UserError("predict-no-column", f"{path} has none of the model's columns: {', '.join(served.inputs)}")
    absent = [column.name for column in served.schema.features if column not in present]
    _report_absent(path, absent, columns, served)
    if format == "json":  # later rows may have more columns than the first
        present = served.schema.features
    # A source requires a target, which may be one of the features.
    for chunk in source.chunks(path, Schema(present, target=present[0]), options):
        for record in source.read(chunk):
            place = str((path if path.is_dir() else path.parent) / record.source)
            if isinstance(record, Reject):
                yield Input(place, {}, record.reason)
            else:
                yield Input(place, {column.name: record.values.get(column.name) for column in present})


def folder(path: Path, column: str) -> Iterator[Input]:
    """Yield each file below a folder as a value of `column`, ordered by name, without hidden files.

    Raises:
        UserError: there is no file.
    """
    empty = True
    for place, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                empty = False
                yield Input(os.path.join(place, name), {column: os.path.join(place, name)})
    if empty:
        raise UserError("predict-no-row", f"{path} has no files")


def valid_rows(path: Path, served: Served) -> tuple[list[str], list[Row]]:
    """Return the places and rows of a table in which every row must be valid.

    Raises:
        ValueError: the file is not a table, or a row is invalid.
    """
    format = _format(path)
    if not format:
        raise ValueError(f"{path} is not an existing table: give rows, or a file that ends in {', '.join(ENDINGS)}")
    try:
        read = list(table(path, format, served, TableFormat()))
    except UserError as error:
        raise ValueError(str(error)) from error
    for place, _, fault in read:
        if fault:
            raise ValueError(f"{place}: {fault}")
    return [row.place for row in read], [row.row for row in read]


def _object(value: str) -> Input:
    try:
        return Input(value, json.loads(value))
    except ValueError as error:
        return Input(value, {}, f"is not JSON: {error}")


def _format(path: Path) -> str:
    return next((name for name in sources.TABLES if path.exists() and sources.source(name).claims(path)), "")


def _file_column(served: Served) -> str:
    """Return the column that takes a file: the only one of bytes, if all others are optional; else ""."""
    of_bytes = [name for name, tensor in served.inputs.items() if tensor.dtype == "bytes"]
    required = [name for name, tensor in served.inputs.items() if not tensor.optional]
    return of_bytes[0] if len(of_bytes) == 1 and set(required) <= set(of_bytes) else ""


def _columns(path: Path, options: delimited.Options, served: Served) -> delimited.Options:
    """Adapt the declared columns to a table that has a header row, or does not have the target's column."""
    first = delimited.first_row(path, options)
    if set(first) & set(served.inputs):
        return replace(options, columns=())
    if len(first) == len(options.columns) - 1:
        return replace(options, columns=tuple(name for name in options.columns if name != served.schema.target.name))
    return options


def _report_absent(path: Path, absent: list[str], columns: list[str], served: Served) -> None:
    """Warn of the model's columns that a table does not have. `columns`: those that it has.

    Raises:
        UserError: an absent column seems to be misspelled in the table, or is not optional.
    """
    unknown = [name for name in columns if name not in served.inputs and name != served.schema.target.name]
    for name in absent:
        close = difflib.get_close_matches(name, unknown, n=1)
        if close:
            raise UserError(
                "predict-missing-column", f"{path} has no column {name!r}: rename {close[0]!r}, if it is that column"
            )
        if not served.inputs[name].optional:
            raise UserError("predict-missing-column", f"{path} has no column {name!r}")
    if absent:
        logging.getLogger(__name__).warning("%s has no %s: missing in every row", path, ", ".join(absent))
