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
from stages.tables.sources import Columns, NoOptions, Reject, Sample, beside, files, named, split_in, wanted

LAYOUT = "a .parquet file, or a folder of such files; train.parquet, ... are official splits"
Options = NoOptions
CHUNK_ROWS = 2048
FEW = 16  # cells that tell whether a column holds files


class Chunk(NamedTuple):
    """A few rows of one file, from number `first`."""

    name: str
    split: str | None
    first: int
    rows: pa.RecordBatch
    folder: str
    files: tuple[str, ...]  # columns whose cells name a file there


def claims(path: Path) -> bool:
    """Whether a file is named like one, or one in the folder is."""
    return bool(_files(path))


def columns(path: Path, options: Options) -> list[str]:
    """The names of the first file's columns, in order."""
    with _opened(_files(path)[0]) as file:
        return named(file.schema_arrow.names, str(_files(path)[0]))


def nested(path: Path, options: Options) -> dict[str, str]:
    """By name, why a column of the first file cannot be read."""
    with _opened(_files(path)[0]) as file:
        return _nested(file)


def held(path: Path, options: Options) -> dict[str, list[Any]]:
    """By name, the first few cells of columns of the first file that hold files: structs with bytes, or only bytes."""
    with _opened(_files(path)[0]) as file:
        names = [field.name for field in file.schema_arrow if _is_picture(field.type) or _is_bytes(field.type)]
        first = next(file.iter_batches(FEW, columns=names), None) if names else None
    cells = {} if first is None else {name: [*map(_held, first.column(name).to_pylist())] for name in names}
    known = {name: [cell for cell in some if cell is not None] for name, some in cells.items()}
    return {name: some for name, some in known.items() if some and not _are_words(some)}


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """At most 2,048 rows each; a row group is in memory at a time.

    Raises:
        UserError: a file cannot be read, has no column of a name that the schema wants, or one of nested values.
    """
    found = _files(path)
    if not found:
        raise UserError(f"{path} holds no table. parquet expects {LAYOUT}")
    for file in found:
        split = split_in(file.stem)
        with _opened(file) as table:
            names = wanted(schema, table.schema_arrow.names, str(file))
            pictures = {name for name in files(schema) if _is_picture(table.schema_arrow.field(name).type)}
            for reason in (why for name, why in _nested(table).items() if name in {*names} - pictures):
                raise UserError(f"{file}: {reason}")
            first = 1
            try:
                for rows in table.iter_batches(CHUNK_ROWS, columns=list(names)):
                    yield Chunk(file.name, split, first, rows, str(file.parent), files(schema))
                    first += len(rows)
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{file}, after row {first - 1}: {error}") from error


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """A chunk's rows."""
    names = chunk.rows.schema.names
    columns = [column.to_pylist() for column in chunk.rows.columns]
    for number, cells in enumerate(zip(*columns, strict=True), chunk.first):
        source = f"{chunk.name} row {number}"
        values: dict[str, Any] = dict(zip(names, cells, strict=True))
        try:
            for name, cell in values.items():
                values[name] = _file(chunk.folder, cell) if name in chunk.files else _text(name, cell)
        except ValueError as error:
            yield Reject(source, str(error))
            continue
        yield Sample(source, chunk.split, values)


def read_columns(chunk: Chunk) -> Columns:
    """A chunk's rows by column.

    Raises:
        ValueError: a cell may name a file.
    """
    if chunk.files:
        raise ValueError("each file that a cell names is looked at by itself")
    sources = numbered(chunk.name, range(chunk.first, chunk.first + len(chunk.rows)))
    cells = [_texts(column) for column in chunk.rows.columns]  # bytes that are no UTF-8 raise ValueError, too
    return Columns(sources, chunk.split, dict(zip(chunk.rows.schema.names, cells, strict=True)), [])


def _file(folder: str, cell: Any) -> Any:
    """A picture's bytes, or the path of its file; Hugging Face's data sets hold both in one cell."""
    cell = _held(cell)
    return beside(folder, cell) if isinstance(cell, str) else cell


def _held(cell: Any) -> Any:
    if isinstance(cell, dict):
        return cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return cell


def _is_picture(type: pa.DataType) -> bool:
    return pa.types.is_struct(type) and type.get_field_index("bytes") >= 0


def _text(name: str, cell: Any) -> Any:
    """Words as Spark, Impala and Hive may write them: as bytes."""
    try:
        return cell.decode() if isinstance(cell, bytes) else cell
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: bytes that are no UTF-8 text") from error


def _are_words(cells: list[Any]) -> bool:
    """Whether all that are bytes are text; no picture's are."""
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


def _files(path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in found if file.suffix.lower() in (".parquet", ".pq") and file.is_file()]


def _nested(file: pq.ParquetFile) -> dict[str, str]:
    return {
        field.name: sources.nested(field.name, field.type)
        for field in file.schema_arrow
        if pa.types.is_nested(field.type)
    }


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
