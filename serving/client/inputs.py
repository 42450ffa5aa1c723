"""What people ask with: values, JSON objects, tables, folders. It becomes rows, each with the place it lies at."""

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


class Asked(NamedTuple):
    """A row, or why it is none."""

    place: str  # the value as it was typed, a file, or a file and the number of the row
    row: Row
    fault: str = ""


@dataclass(frozen=True)
class Written:
    """How tables are written: a project's `data.format`, and the Options of that source."""

    format: str = ""
    options: Any = None


def rows(values: Sequence[str], served: Served, written: Written) -> Iterator[Asked]:
    """What people type: a JSON object, a table, a folder of files, or else a value of the only column.

    Raises:
        UserError: several columns are wanted of a single value, or a file is no table of such rows.
    """
    names = list(served.inputs)
    for value in values:
        path = Path(value)
        if value.lstrip().startswith("{"):
            yield _object(value)
        elif format := _format(path):
            yield from table(path, format, served, written)
        elif path.is_dir() and (only := _file_column(served)):
            yield from folder(path, only)
        elif value.lower().endswith(ENDINGS):
            raise UserError(f"{value} cannot be read: there is no such file")
        elif len(names) == 1:
            yield Asked(value, {names[0]: value})
        else:
            some = ", ".join(f'"{name}": ...' for name in names[:3])
            raise UserError(
                f"{value}: this model takes {len(names)} columns: give '{{{some}}}' or a table, such as .csv"
            )


def table(path: Path, format: str, served: Served, written: Written) -> Iterator[Asked]:
    """The rows of a file or folder, cell by cell as training reads them. What the model does not take is left out.

    Raises:
        UserError: it cannot be read, or lacks a column; one that may be missing is so in every row.
    """
    source = sources.source(format)
    options = written.options if format == written.format else source.Options()
    if isinstance(options, delimited.Options) and options.columns:
        options = _columns(path, options, served)
    there = source.columns(path, options)
    present = tuple(column for column in served.schema.features if column.name in there)
    if not present:
        raise UserError(f"{path} has none of the model's columns: {', '.join(served.inputs)}")
    _miss(path, [column.name for column in served.schema.features if column not in present], there, served)
    if format == "json":  # the first row does not speak for all
        present = served.schema.features
    # a source wants a target, and a column may be it a second time
    for chunk in source.chunks(path, Schema(present, target=present[0]), options):
        for found in source.read(chunk):
            place = str((path if path.is_dir() else path.parent) / found.source)
            if isinstance(found, Reject):
                yield Asked(place, {}, found.reason)
            else:
                yield Asked(place, {column.name: found.values.get(column.name) for column in present})


def folder(path: Path, column: str) -> Iterator[Asked]:
    """All files below a folder, by name, hidden ones left out; each is a value of `column`.

    Raises:
        UserError: there is none.
    """
    empty = True
    for place, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                empty = False
                yield Asked(os.path.join(place, name), {column: os.path.join(place, name)})
    if empty:
        raise UserError(f"{path} holds no file")


def whole(path: Path, served: Served) -> tuple[list[str], list[Row]]:
    """Places and rows of a table that must be without a fault.

    Raises:
        ValueError: it is no table, or has a fault.
    """
    format = _format(path)
    if not format:
        raise ValueError(f"{path} is no table that is there: give rows, or a file that ends in {', '.join(ENDINGS)}")
    try:
        found = list(table(path, format, served, Written()))
    except UserError as error:
        raise ValueError(str(error)) from error
    for place, _, fault in found:
        if fault:
            raise ValueError(f"{place}: {fault}")
    return [asked.place for asked in found], [asked.row for asked in found]


def _object(value: str) -> Asked:
    try:
        return Asked(value, json.loads(value))
    except ValueError as error:
        return Asked(value, {}, f"is no JSON: {error}")


def _format(path: Path) -> str:
    return next((name for name in sources.TABLES if path.exists() and sources.source(name).claims(path)), "")


def _file_column(served: Served) -> str:
    """The column that a bare file fills: the only one of bytes, where all others may be missing."""
    blobs = [name for name, tensor in served.inputs.items() if tensor.dtype == "bytes"]
    needed = [name for name, tensor in served.inputs.items() if not tensor.optional]
    return blobs[0] if len(blobs) == 1 and set(needed) <= set(blobs) else ""


def _columns(path: Path, options: delimited.Options, served: Served) -> delimited.Options:
    """The declared columns, but for a table that has a header row of its own, or leaves the target out."""
    first = delimited.first_row(path, options)
    if set(first) & set(served.inputs):
        return replace(options, columns=())
    if len(first) == len(options.columns) - 1:
        return replace(options, columns=tuple(name for name in options.columns if name != served.schema.target.name))
    return options


def _miss(path: Path, absent: list[str], there: list[str], served: Served) -> None:
    """Say which columns a table lacks.

    Raises:
        UserError: one seems to be misspelt there, or may not be missing.
    """
    unknown = [name for name in there if name not in served.inputs and name != served.schema.target.name]
    for name in absent:
        close = difflib.get_close_matches(name, unknown, n=1)
        if close:
            raise UserError(f"{path} has no column {name!r}: rename {close[0]!r}, if that is meant")
        if not served.inputs[name].optional:
            raise UserError(f"{path} has no column {name!r}")
    if absent:
        logging.getLogger(__name__).warning("%s lacks %s: missing in every row", path, ", ".join(absent))
