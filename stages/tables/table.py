"""Read the table in pieces: some 16 MiB at a time, or one row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

PIECE_BYTES = 16 << 20


def column(path: Path, name: str) -> np.ndarray:
    """A whole column [N]; for small ones."""
    cells: np.ndarray = parquet.read_table(path, columns=[name]).column(name).to_numpy(zero_copy_only=False)
    return cells


def is_in(path: Path, name: str, values: Sequence[str]) -> np.ndarray:
    """Whether each cell of a text column is one of `values`, bool [N]."""
    if not values:
        return np.zeros(parquet.read_metadata(path).num_rows, bool)
    cells = parquet.read_table(path, columns=[name]).column(name)
    found: np.ndarray = pc.is_in(cells, value_set=pa.array(values, pa.string())).to_numpy()
    return found


def ids(path: Path) -> np.ndarray:
    """The first 64 bits of each row's id, uint64 [N]."""
    return keys(parquet.read_table(path, columns=["_id"]).column(0))


def keys(cells: pa.ChunkedArray) -> np.ndarray:
    """The first 64 bits of ids, uint64 [N]; 0 for null.

    Two of two million samples share them by chance in one of ten million tables.
    """
    heads = pc.utf8_slice_codeunits(cells, 0, 16).fill_null("0" * 16).combine_chunks()
    return np.frombuffer(bytes.fromhex(str(heads.buffers()[2] or b"", "ascii")), ">u8").astype(np.uint64)


def pieces(path: Path, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the columns `names` of consecutive row groups, with the position of the first row.

    Texts are dictionary-encoded, so that a repeated one is built only once.
    """
    about = parquet.read_metadata(path)
    texts = [field.name for field in about.schema.to_arrow_schema() if field.type == pa.string()]
    with parquet.ParquetFile(path, metadata=about, read_dictionary=texts) as table:
        for first, groups in _together([about.row_group(group) for group in range(about.num_row_groups)]):
            yield first, table.read_row_groups(groups, columns=names).select(names)


def _together(row_groups: Sequence[Any]) -> Iterator[tuple[int, list[int]]]:
    """Yield the position of the first row and the numbers of row groups that are read together."""
    first = end = size = 0
    numbers: list[int] = []
    for number, about in enumerate(row_groups):
        if numbers and size + about.total_byte_size > PIECE_BYTES:
            yield first, numbers
            first, size, numbers = end, 0, []
        end, size = end + about.num_rows, size + about.total_byte_size
        numbers.append(number)
    if numbers:
        yield first, numbers


def select(first: int, piece: pa.Table, positions: np.ndarray) -> pa.Table:
    """The rows of a piece at the table's ascending `positions`; `first` is the position of its first row."""
    inside = slice(*np.searchsorted(positions, (first, first + len(piece))))
    return piece.take(positions[inside] - first)


def raw(cells: pa.ChunkedArray) -> Sequence[Any]:
    """A column's raw values [n]: numbers as an array, others as a list."""
    if pa.types.is_floating(cells.type):
        return cast(Sequence[Any], cells.to_numpy())
    if not pa.types.is_dictionary(cells.type):
        return cast(Sequence[Any], cells.to_pylist())
    values: list[Any] = []
    for chunk in cells.chunks:
        distinct = np.array([*chunk.dictionary.to_pylist(), None], object)
        values += distinct[chunk.indices.fill_null(len(chunk.dictionary)).to_numpy()].tolist()
    return values


class Values:
    """The raw values of a column at ascending row `positions`, in chunks [n]. Can be iterated more than once."""

    def __init__(self, path: Path, name: str, positions: np.ndarray) -> None:
        self.path, self.name, self.positions = path, name, positions

    def __iter__(self) -> Iterator[Sequence[Any]]:
        for first, piece in pieces(self.path, [self.name]):
            if len(rows := select(first, piece, self.positions)):
                yield raw(rows.column(0))
