"""Columns of a table as Arrow arrays: raw values of many cells at once, and the ids of rows."""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.schema import Kind, Target, Vectorized

TYPES = {"bytes": pa.binary(), "str": pa.string(), "float64": pa.float64()}  # by RAW


def raw(cells: pa.Array, module: Kind | Target) -> tuple[pa.Array, dict[int, str]]:
    """A kind's `raw` of each cell [N], and position -> error message of each cell that it rejects.

    Computed for the whole column at once if the kind can do that and rejects no cell, else for each distinct text.
    """
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if isinstance(module, Vectorized) and (numbers := _numbers(cells)) is not None:
        with contextlib.suppress(ValueError):  # `raw` below finds the cell at fault
            return array(module.raws(numbers), TYPES[module.RAW]), {}
    values, faults = [], {}
    distinct, places = _distinct(cells)
    for place, value in enumerate(distinct):
        try:
            values.append(module.raw(value))
        except ValueError as error:
            values.append(None)
            faults[place] = str(error)
    wrong: Sequence[int] | np.ndarray = np.flatnonzero(np.isin(places, list(faults))) if faults else []
    return array(values, TYPES[module.RAW]).take(array(places, pa.int64())), {
        int(i): faults[int(places[i])] for i in wrong
    }


def words(cells: pa.Array, read: Callable[[Any], str | None]) -> pa.Array:
    """`read` of each cell, text [N]; it is called once for equal cells."""
    distinct, places = _distinct(cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells)
    return array([read(value) for value in distinct], pa.string()).take(array(places, pa.int64()))


def _numbers(cells: pa.Array) -> np.ndarray | None:
    """Python's float() of cells, float64 [N], NaN for null; None if they are neither numbers nor texts of numbers."""
    if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
        return _filled(cells.cast(pa.float64(), safe=False))
    if not pa.types.is_string(cells.type):
        return None
    with contextlib.suppress(ValueError):
        numbers = _filled(cells.cast(pa.float64()))
        if np.count_nonzero(np.isnan(numbers)) == cells.null_count:  # Arrow reads "nan(...)", float() does not
            return numbers
    with contextlib.suppress(ValueError):
        return np.array(cells.to_pylist(), np.float64)
    return None


def _filled(numbers: pa.Array) -> np.ndarray:
    """Return float64 [N], NaN for null; `to_numpy` would load pandas."""
    return np.from_dlpack(numbers.fill_null(array([None], pa.float64())[0]))


def _distinct(cells: pa.Array) -> tuple[list[Any], np.ndarray]:
    """The distinct texts (or all cells, if of another type), and the index [N] of each cell among them."""
    if not pa.types.is_string(cells.type):
        return cells.to_pylist(), np.arange(len(cells))
    encoded = cells.dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), np.from_dlpack(encoded.indices)


def numbered(name: str, numbers: Sequence[int]) -> pa.Array:
    """The sources of rows by their numbers, such as "table.csv row 2", text [N]."""
    texts = array(numbers, pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise(scalar(f"{name} row"), texts, scalar(" "))


def array(values: Any, type: pa.DataType) -> pa.Array:
    """`pa.array` without loading pandas, which would cost every worker time and memory."""
    if type not in (pa.binary(), pa.string()):
        numbers = np.ascontiguousarray(values, type.to_pandas_dtype())  # None becomes NaN
        return pa.Array.from_buffers(type, len(numbers), [None, pa.py_buffer(numbers)])
    known = np.array([value is not None for value in values], bool)
    parts = [_content(value) or b"" for value in values]
    validity = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    return pa.Array.from_buffers(type, len(parts), [validity, pa.py_buffer(ends), pa.py_buffer(b"".join(parts))])


def scalar(value: str | bytes | None) -> pa.Scalar:
    """`pa.scalar` without loading pandas; None becomes a null text."""
    return array([value], pa.binary() if isinstance(value, bytes) else pa.string())[0]


def identity(features: Iterable[Any]) -> str:
    """The id of a row: the SHA-256 of its raw features, without the target."""
    digest = hashlib.sha256()
    for value in features:
        content = _content(value)
        digest.update(struct.pack("<q", -1 if content is None else len(content)))
        digest.update(content or b"")
    return digest.hexdigest()


def _content(value: bytes | str | float | None) -> bytes | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return None if value is None or math.isnan(value) else struct.pack("<d", value)


def identities(features: Sequence[pa.Array]) -> pa.Array:
    """The `identity` of each row of columns [N]; the bytes of all rows are joined at once."""
    parts = [part for cells in features for part in _hashed(cells)]
    joined = pc.binary_join_element_wise(*parts, scalar(b""), null_handling="replace", null_replacement=b"")
    _, ends, content = joined.buffers()
    rows = bytes(content or b"")
    limits = np.frombuffer(ends, np.int32, len(joined) + 1).tolist()
    digests = [hashlib.sha256(rows[first:last]).digest() for first, last in pairwise(limits)]
    hexadecimal = b"".join(digests).hex().encode()
    return _pieces(hexadecimal, np.full(len(digests), 64), pa.string())


def _hashed(cells: pa.Array) -> list[pa.Array]:
    """Columns of bytes that, joined, are what `identity` hashes of each cell: its length and its content."""
    if pa.types.is_floating(cells.type):
        numbers = _filled(cells)
        known = ~np.isnan(numbers)
        pairs = np.stack([np.where(known, 8, -1).astype("<i8"), numbers.astype("<f8").view("<i8")], axis=1)
        used = np.stack([np.ones_like(known), known], axis=1)
        return [_pieces(pairs[used], np.where(known, 16, 8), pa.binary())]
    lengths = np.from_dlpack(pc.binary_length(cells).fill_null(array([-1], pa.int32())[0])).astype("<i8")
    return [_pieces(lengths, np.full(len(cells), 8), pa.binary()), cells.cast(pa.binary())]


def _pieces(content: Any, lengths: np.ndarray, type: pa.DataType) -> pa.Array:
    """A buffer's content cut into pieces of `lengths` [N] bytes."""
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    return pa.Array.from_buffers(type, len(lengths), [None, pa.py_buffer(ends), pa.py_buffer(content)])
