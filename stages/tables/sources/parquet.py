"""Parquet: a row for each sample, in one file or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables import sources
from stages.tables.arrow import numbered
from stages.tables.sources import (
    INTACT,
    Columns,
    NoOptions,
    Reject,
    Sample,
    cell_path,
    check_names,
    file_columns,
    require_same_columns,
    split_in,
    wanted_columns,
)

LAYOUT = "a .parquet file, or a folder of such files; train.parquet, ... are official splits"
Options = NoOptions
CHUNK_ROWS = 2048
FEW = 16  # cells that are looked at to see whether a column holds files


class Chunk(NamedTuple):
    """A few rows of one file, from number `first`."""

    name: str
    split: str | None
    first: int
    rows: pa.RecordBatch
    folder: str
    file_columns: tuple[str, ...]  # columns whose cells name a file in `folder`


def claims(path: Path) -> bool:
    """Whether a file, or one in the folder, has an ending of this format."""
    return bool(_files(path))


def columns(path: Path, options: Options) -> list[str]:
    """The names of the first file's columns, in order."""
    return _names(_files(path)[0])


def nested(path: Path, options: Options) -> dict[str, str]:
    """Column of nested values in the first file -> why it cannot be read."""
    with _opened(_files(path)[0]) as file:
        return _nested(file)


def held(path: Path, options: Options) -> dict[str, list[Any]]:
    """Column of files, which are structs with bytes or only bytes -> its first few cells in the first file."""
    with _opened(_files(path)[0]) as file:
        names = [field.name for field in file.schema_arrow if _is_picture(field.type) or _is_bytes(field.type)]
        first = next(file.iter_batches(FEW, columns=names), None) if names else None
    cells = {} if first is None else {name: [*map(_held, first.column(name).to_pylist())] for name in names}
    present = {name: [cell for cell in first_cells if cell is not None] for name, first_cells in cells.items()}
    return {name: first_cells for name, first_cells in present.items() if first_cells and not _are_words(first_cells)}


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """Chunks of at most 2,048 rows, with one row group in memory at a time.

    Raises:
        UserError: a file cannot be read, lacks a column of the schema, or has nested values in one.
    """
    tables = _files(path)
    if not tables:
        raise UserError("data-other-format", f"{path} holds no table. parquet expects {LAYOUT}")
    require_same_columns(path, {file.name: _names(file) for file in tables})
    for file in tables:
        split = split_in(file.stem)
        with _opened(file) as table:
            names = wanted_columns(schema, table.schema_arrow.names, str(file))
            pictures = {name for name in file_columns(schema) if _is_picture(table.schema_arrow.field(name).type)}
            for reason in (why for name, why in _nested(table).items() if name in {*names} - pictures):
                raise UserError("data-nested-column", f"{file}: {reason}")
            first = 1
            try:
                for rows in table.iter_batches(CHUNK_ROWS, columns=list(names)):
                    yield Chunk(file.name, split, first, rows, str(file.parent), file_columns(schema))
                    first += len(rows)
            except (OSError, pa.ArrowException) as error:
                raise UserError("data-damaged", f"{file}, after row {first - 1}: {error}: {INTACT}") from error


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """Yield a chunk's rows."""
    names = chunk.rows.schema.names
    columns = [column.to_pylist() for column in chunk.rows.columns]
    for number, cells in enumerate(zip(*columns, strict=True), chunk.first):
        source = f"{chunk.name} row {number}"
        values: dict[str, Any] = dict(zip(names, cells, strict=True))
        try:
            for name, cell in values.items():
                values[name] = _file(chunk.folder, cell) if name in chunk.file_columns else _text(name, cell)
        except ValueError as error:
            yield Reject(source, str(error))
            continue
        yield Sample(source, chunk.split, values)


def read_columns(chunk: Chunk) -> Columns:
    """A chunk's rows by column.

    Raises:
        ValueError: a cell may name a file.
    """
    if chunk.file_columns:
        raise ValueError("a cell may name a file: read the rows one by one")
    sources = numbered(chunk.name, range(chunk.first, chunk.first + len(chunk.rows)))
    cells = [_texts(column) for column in chunk.rows.columns]  # raises ValueError if bytes are not UTF-8
    return Columns(sources, chunk.split, dict(zip(chunk.rows.schema.names, cells, strict=True)), [])


def _file(folder: str, cell: Any) -> Any:
    """A picture's bytes, or the path of its file. A cell of Hugging Face's data sets may hold both."""
    cell = _held(cell)
    return cell_path(folder, cell) if isinstance(cell, str) else cell


def _held(cell: Any) -> Any:
    if isinstance(cell, dict):
        return cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return cell


def _is_picture(type: pa.DataType) -> bool:
    return bool(pa.types.is_struct(type) and type.get_field_index("bytes") >= 0)


def _text(name: str, cell: Any) -> Any:
    """A cell's text, which Spark, Impala and Hive may write as bytes."""
    try:
        return cell.decode() if isinstance(cell, bytes) else cell
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: bytes that are not UTF-8 text") from error


def _are_words(cells: list[Any]) -> bool:
    """Whether all bytes among the cells are UTF-8 text, which no picture's are."""
    try:
        return bool([cell.decode() for cell in cells if isinstance(cell, bytes)])
    except UnicodeDecodeError:
        return False


def _is_bytes(type: pa.DataType) -> bool:
    type = type.value_type if pa.types.is_dictionary(type) else type
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type))


def _texts(cells: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells.cast(pa.string()) if _is_bytes(cells.type) else cells


def _names(file: Path) -> list[str]:
    with _opened(file) as opened:
        return check_names(opened.schema_arrow.names, str(file))


def _files(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in (".parquet", ".pq") and file.is_file()]


def _nested(file: pq.ParquetFile) -> dict[str, str]:
    return {
        field.name: sources.nested_message(field.name, field.type)
        for field in file.schema_arrow
        if pa.types.is_nested(field.type)
    }


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError("data-unreadable", f"{file} cannot be read: {error}: check its rights, or {INTACT}") from error
