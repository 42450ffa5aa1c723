"""MNIST's own format: pairs of files NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte, gzipped or not."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase as Stream
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables.sources import INTACT, NoOptions, Sample, split_named, two_columns

Options = NoOptions
LAYOUT = "train-images-idx3-ubyte with train-labels-idx1-ubyte, t10k-images-idx3-ubyte and so on"
CHUNK_ROWS = 512
CHUNK_BYTES = 4 << 20
ARRAY_BYTES = 1 << 28  # no picture is larger: a header that says more is broken

_NAME = re.compile(r"(?P<stem>.*?)[-._]?(?P<what>images|labels)[-._]idx\d[-._]ubyte(\.gz)?", re.IGNORECASE)
_UBYTE = 8
_BROKEN = (OSError, EOFError, zlib.error)  # what gzip raises


class Pair(NamedTuple):
    """A file of pictures with its file of labels."""

    split: str | None
    images: Path
    labels: Path


class Chunk(NamedTuple):
    """A part of a pair for one process."""

    feature: str
    target: str
    source: str
    split: str | None
    first: int
    shape: tuple[int, ...]  # of one array
    values: bytes
    labels: bytes


def claims(path: Path) -> bool:
    """Whether a file in the folder has a name like MNIST's."""
    return path.is_dir() and any(_NAME.fullmatch(name) for name in os.listdir(path))


def columns(path: Path, options: Options) -> list[str]:
    """No columns: this format is not a table."""
    return []


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """Chunks of at most 512 arrays or 4 MB, read as a stream.

    Raises:
        UserError: a file is missing, broken, too short or too long, or does not match its name or its partner.
    """
    feature, target = two_columns(schema, "idx")
    for split, images, labels in _pairs(path):
        with _opened(images, (3, 4)) as (pixels, shape), _opened(labels, (1,)) as (classes, (count,)):
            if shape[0] != count:
                raise UserError("data-unpaired", f"{images} holds {shape[0]:,} images, but {labels} {count:,} labels")
            size = math.prod(shape[1:])
            rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, size)))
            for first in range(0, count, rows):
                last = min(first + rows, count)
                values = _read(pixels, (last - first) * size, images, size * first, size * count)
                codes = _read(classes, last - first, labels, first, count)
                yield Chunk(feature, target, images.name, split, first, shape[1:], values, codes)
            _ended(pixels, images, size * count)
            _ended(classes, labels, count)


def read(chunk: Chunk) -> Iterator[Sample]:
    """Yield arrays uint8 [H, W] or [H, W, C], and labels as text. Sources count a file's arrays from 0, as in `#17`."""
    arrays = np.frombuffer(chunk.values, np.uint8).reshape(-1, *chunk.shape)
    for row, label in enumerate(chunk.labels):
        values = {chunk.feature: arrays[row], chunk.target: str(label)}
        yield Sample(f"{chunk.source}#{chunk.first + row}", chunk.split, values)


def _pairs(folder: Path) -> list[Pair]:
    """Images with their labels, by name. If a file is there both gzipped and not, the one that is not."""
    pairs: dict[str, dict[str, Path]] = {}
    names = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
    for name in names:
        if match := _NAME.fullmatch(name):
            pairs.setdefault(match["stem"].lower(), {})[match["what"].lower()] = folder / name
    if not pairs:
        raise UserError("data-other-format", f"{folder} holds no IDX file. idx expects {LAYOUT}")
    for files in pairs.values():
        for what, other in (("images", "labels"), ("labels", "images")):
            if what not in files:
                raise UserError(
                    "data-unpaired", f"{files[other]} has no partner: the {what} are missing. idx expects {LAYOUT}"
                )
    return [Pair(_split(stem), files["images"], files["labels"]) for stem, files in sorted(pairs.items())]


def _split(stem: str) -> str | None:
    return next((split for word in re.split(r"[-._]", stem) if (split := split_named(word))), None)


@contextmanager
def _opened(path: Path, ranks: tuple[int, ...]) -> Iterator[tuple[Stream, tuple[int, ...]]]:
    """The file past its header, and the shape in the header."""
    with ExitStack() as stack:
        try:
            file: Stream = stack.enter_context(path.open("rb"))
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if zipped:
                file = stack.enter_context(gzip.GzipFile(fileobj=file))
            shape = _shape(file, path, ranks)
        except _BROKEN as error:
            raise UserError(
                "data-unreadable", f"{path} cannot be read: {error}: check its rights, or {INTACT}"
            ) from error
        held, expected = os.path.getsize(path) - 4 - 4 * len(shape), math.prod(shape)
        if not zipped and held != expected:
            raise UserError("data-damaged", f"{path} holds {held:,} values, but its header says {expected:,}: {INTACT}")
        yield file, shape


def _shape(file: Stream, path: Path, ranks: tuple[int, ...]) -> tuple[int, ...]:
    magic = file.read(4)
    if magic not in [bytes((0, 0, _UBYTE, rank)) for rank in ranks]:
        expected = " or ".join(f"0x{_UBYTE << 8 | rank:08x}" for rank in ranks)
        raise UserError(
            "data-damaged",
            f"{path} begins with 0x{magic.hex()}, where an IDX file of this name has {expected}: {INTACT}",
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise UserError("data-damaged", f"{path} ends within its header, after {4 + len(header)} bytes: {INTACT}")
    shape = struct.unpack(f">{magic[3]}I", header)
    if math.prod(shape[1:]) > ARRAY_BYTES:
        sides = "x".join(map(str, shape[1:]))
        raise UserError(
            "data-damaged",
            f"{path} says that each array is {sides}, which is over {ARRAY_BYTES:,} bytes: {INTACT}",
        )
    return shape


def _read(file: Stream, size: int, path: Path, offset: int, expected: int) -> bytes:
    try:
        values = file.read(size)
    except _BROKEN as error:
        raise UserError("data-unreadable", f"{path} cannot be read: {error}: check its rights, or {INTACT}") from error
    if len(values) < size:
        raise UserError(
            "data-damaged", f"{path} holds {offset + len(values):,} values, but its header says {expected:,}: {INTACT}"
        )
    return values


def _ended(file: Stream, path: Path, expected: int) -> None:
    try:
        more = file.read(1)
    except _BROKEN as error:
        raise UserError("data-unreadable", f"{path} cannot be read: {error}: check its rights, or {INTACT}") from error
    if more:
        raise UserError(
            "data-damaged", f"{path} holds more than the {expected:,} values that its header says: {INTACT}"
        )
