"""CSV and TSV: a row for each sample, in one file or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables.arrow import array, numbered
from stages.tables.dialect import Dialect, find
from stages.tables.number_format import PLAIN, Marks, plain, plain_column
from stages.tables.sources import (
    INTACT,
    Columns,
    Reject,
    Sample,
    cell_path,
    check_names,
    file_columns,
    number_columns,
    require_same_columns,
    split_in,
    wanted_columns,
)

LAYOUT = "a .csv or .tsv file, or a folder of such files; train.csv, val.csv and test.csv are official splits"
ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".data")
BLOCK_BYTES = 1 << 20  # of a file at a time, which becomes a chunk


@dataclass(frozen=True)
class Options:
    """How the files are written."""

    columns: tuple[str, ...] = ()  # the names of the columns in order, if the files have no header row
    delimiter: str = ""  # by default the most frequent of comma, tab, semicolon and bar in the first row
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
    replace: dict[str, str] = field(default_factory=dict)  # cell -> the value that it stands for
    decimal: str = "."  # before the fraction of a number, in columns of numbers
    thousands: str = ""  # between its groups of three digits

    @property
    def marks(self) -> Marks:
        """The marks within numbers."""
        return Marks(self.decimal, self.thousands)

    def __post_init__(self) -> None:
        if len(self.delimiter) > 1:
            raise ValueError(f"delimiter must be one character, not {self.delimiter!r}")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"there is no encoding {self.encoding!r}") from None
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal must be '.' or ',', not {self.decimal!r}")
        if len(self.thousands) > 1 or self.thousands.isalnum() or self.thousands in ("+", "-"):
            raise ValueError(f"thousands must be one mark, not {self.thousands!r}")
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands cannot both be {self.decimal!r}: give both")


class Chunk(NamedTuple):
    """A few rows of one file."""

    name: str
    split: str | None
    columns: tuple[str, ...]  # of the schema
    numbers: Sequence[int]  # of the rows, from 1, the header row included
    cells: pa.RecordBatch  # bytes, by column
    faults: list[Reject]  # rows among them that cannot be read
    meaning: dict[str, str | None]
    folder: str
    file_columns: tuple[str, ...]  # columns whose cells name a file in `folder`
    marks: Marks
    marked: tuple[str, ...]  # columns of numbers that are written with `marks`


def claims(path: Path) -> bool:
    """Whether a file, or one in the folder, has an ending of this format."""
    return bool(_files(path))


def columns(path: Path, options: Options) -> list[str]:
    """The names of the first file's columns, in order."""
    return _names(dialect(_files(path)[0], options))


def first_row(path: Path, options: Options) -> list[str]:
    """The cells of a file's first row, which may be the names of its columns."""
    return list(dialect(path, options).first_row)


def dialect(file: Path, options: Options) -> Dialect:
    """How a file is written, as declared or found."""
    return find(file, options.encoding, options.delimiter, options.columns)


def _names(written: Dialect) -> list[str]:
    """The names of a file's columns.

    Raises:
        UserError: one is blank, or two are equal; or the first row cannot be read.
    """
    if written.declared:
        return check_names(list(written.declared), "data.options.columns")
    hint = "if it has no header row, set data.options.columns (`data add --options '{columns: [...]}'`)"
    return check_names(list(written.columns), str(written.file), hint)


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """Chunks of some 1 MiB of a file, read as a stream.

    Raises:
        UserError: a file lacks a column of the schema, or has a row that never ends.
    """
    tables = _files(path)
    if not tables:
        raise UserError("data-other-format", f"{path} holds no table. csv expects {LAYOUT}")
    require_same_columns(path, {file.name: _names(dialect(file, options)) for file in tables})
    meaning: dict[str, str | None] = {**options.replace, **dict.fromkeys(options.missing)}
    for file in tables:
        name = file.name if path.is_dir() else path.name
        split = split_in(file.stem)
        yield from _read(dialect(file, options), name, split, schema, options.marks, meaning)


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """Yield a chunk's rows; reject those that are not text in the declared encoding."""
    yield from chunk.faults
    columns = [chunk.cells.column(name).to_pylist() for name in chunk.columns]
    for number, *cells in zip(chunk.numbers, *columns, strict=True):
        source = f"{chunk.name} row {number}"
        try:
            yield Sample(source, chunk.split, _values(chunk, cells))
        except UnicodeDecodeError as error:
            yield Reject(source, f"is not UTF-8 (byte {error.object[error.start]:#04x}): set data.options.encoding")
        except ValueError as error:
            yield Reject(source, str(error))


def read_columns(chunk: Chunk) -> Columns:
    """A chunk's rows by column.

    Raises:
        ValueError: a cell is not text in the declared encoding, holds a NUL byte, may name a file, or is a number
            with other marks than declared.
    """
    if chunk.file_columns:
        raise ValueError("a cell may name a file: read the rows one by one")
    words, meant = (array(list(texts), pa.string()) for texts in (chunk.meaning.keys(), chunk.meaning.values()))
    cells = {name: _texts(chunk.cells.column(name), words, meant) for name in chunk.columns}
    cells |= {name: plain_column(cells[name], chunk.marks) for name in chunk.marked}
    return Columns(numbered(chunk.name, chunk.numbers), chunk.split, cells, chunk.faults)


def _texts(cells: pa.Array, words: pa.Array, meant: pa.Array) -> pa.Array:
    """Cells of bytes [N] as texts; those among `words` are replaced by what is `meant`."""
    texts = pc.utf8_trim_whitespace(cells.cast(pa.string()))
    if b"\0" in bytes(texts.buffers()[2] or b""):
        raise ValueError("holds a NUL byte")
    places = pc.index_in(texts, value_set=words)
    if places.null_count == len(places):
        return texts
    return pc.if_else(places.is_valid(), meant.take(places), texts)


def _values(chunk: Chunk, cells: list[bytes]) -> dict[str, str | None]:
    texts = [cell.decode().strip() for cell in cells]
    if any("\0" in text for text in texts):
        raise ValueError("holds a NUL byte")
    values = dict(zip(chunk.columns, (chunk.meaning.get(text, text) for text in texts), strict=True))
    for name in chunk.marked:
        try:
            text = values[name]
            values[name] = None if text is None else plain(text, chunk.marks)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return values | {name: cell_path(chunk.folder, values[name]) for name in chunk.file_columns}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and _is_table(file))
    return [path] if path.is_file() and _is_table(path) else []


def _is_table(file: Path) -> bool:
    return file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")


def _read(
    written: Dialect, name: str, split: str | None, schema: Schema, marks: Marks, meaning: dict[str, str | None]
) -> Iterator[Chunk]:
    file = written.file
    columns = wanted_columns(schema, written.columns, str(file))
    marked = () if marks == PLAIN else number_columns(schema)
    reading = str(file.parent), file_columns(schema), marks, marked
    bad: dict[int, Reject] = {}
    cells = pa.RecordBatch.from_arrays([array([], pa.binary()) for _ in columns], list(columns))

    swallowed = 0  # rows that were read as part of another

    def skip(row: Any) -> str:
        nonlocal swallowed
        first, cells = row.number + swallowed, f"{row.actual_columns} cells and not {row.expected_columns}"
        bad[first] = Reject(f"{name} row {first}", f"has {cells}")
        if row.text.count('"') % 2:
            last = first + row.text.rstrip().count("\n")
            bad[first] = Reject(f"{name} row {first}", f"has {cells} (is a quote in it never closed?)")
            for number in range(first + 1, last + 1):
                bad[number] = Reject(f"{name} row {number}", f"belongs to the quote that row {first} opens")
            swallowed += last - first
        return "skip"

    number = 1 if written.declared else 2
    try:
        with csv.open_csv(
            file,
            csv.ReadOptions(
                use_threads=False,  # with threads the number of a bad row is unknown
                block_size=BLOCK_BYTES,
                column_names=list(written.declared) or None,
                encoding=written.encoding,
            ),
            csv.ParseOptions(delimiter=written.delimiter, newlines_in_values=True, invalid_row_handler=skip),
            csv.ConvertOptions(column_types=dict.fromkeys(written.columns, pa.binary()), include_columns=list(columns)),
        ) as batches:
            for cells in batches:
                numbers, number, faults = _numbered(len(cells), number, bad)
                yield Chunk(name, split, columns, numbers, cells, faults, meaning, *reading)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        fault = str(error)
        if "straddling" in fault or "block boundaries" in fault:
            size = f"{BLOCK_BYTES >> 10} KiB, which JSON and Parquet allow"
            fault = f"the next one does not end: is a quote never closed, or the row longer than {size}?"
        raise UserError("data-damaged", f"{file}, after row {number - 1}: {fault}: correct it, or {INTACT}") from error
    if bad:
        yield Chunk(name, split, columns, [], cells.slice(0, 0), list(bad.values()), meaning, *reading)


def _numbered(count: int, number: int, bad: dict[int, Reject]) -> tuple[Sequence[int], int, list[Reject]]:
    """The numbers of the next `count` rows from `number` on, the number after them, and the bad rows among them."""
    if not bad:
        return range(number, number + count), number + count, []
    numbers: list[int] = []
    faults: list[Reject] = []
    while len(numbers) < count or number in bad:
        if number in bad:
            faults.append(bad.pop(number))
        else:
            numbers.append(number)
        number += 1
    return numbers, number, faults


def unnamed(path: Path, options: Options) -> tuple[int, int]:
    """The numbers of columns without a name before and after the others: a pandas index, and trailing delimiters."""
    return dialect(_files(path)[0], options).unnamed
