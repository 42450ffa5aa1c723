"""Raw formats: a module for each, found by the name in `data.format`; and what they have in common."""

from __future__ import annotations

import difflib
import os
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from stages.core.errors import UserError
from stages.core.lookup import load_module
from stages.schema import Column, Schema, kind

if TYPE_CHECKING:
    import pyarrow as pa

_FILES = {
    "csv": "delimited",
    "json": "json_rows",
}  # the other modules have their formats' names; csv and json are modules of the standard library
FEW = 5  # files and columns that a message names
INTACT = "get an intact copy of the file"
TABLES = ("csv", "parquet", "json")  # formats of rows with named cells


class Sample(NamedTuple):
    """A sample as the format holds it."""

    source: str  # where it comes from: readable, and unique to the sample
    split: str | None  # "train", "val" or "test" if the data set has official splits
    values: dict[str, Any]  # by column, of any type that its kind reads: a path, an array, a number


class Reject(NamedTuple):
    """A part of the data that cannot be read as a sample."""

    source: str
    reason: str


class Columns(NamedTuple):
    """Many samples of one split, by column; null is None."""

    sources: pa.Array  # text [N]
    split: str | None
    values: dict[str, pa.Array]  # [N] each, of text or any other type that the format holds
    rejects: list[Reject]  # of the same chunk


class Source(Protocol):
    """A format. A chunk is the work of one process at a time: small, picklable, of any type."""

    LAYOUT: str  # its layout on disk, in a few words
    Options: type  # the keys of `data.options`

    def claims(self, path: Path) -> bool:
        """Whether `path` looks like this format, without a thorough check."""
        ...

    def columns(self, path: Path, options: Any) -> list[str]:
        """The names of a table's columns, in order; [] for a format that is not a table."""
        ...

    def chunks(self, path: Path, schema: Schema, options: Any) -> Iterator[Any]:
        """Everything at `path` as chunks, lazily and in an order that depends only on the data.

        Raises:
            UserError: `path` is not of this format, or cannot fill the columns of `schema`.
        """
        ...

    def read(self, chunk: Any) -> Iterator[Sample | Reject]:
        """Yield a chunk's samples one by one, so that only one need be in memory."""
        ...


@runtime_checkable
class Columnar(Protocol):
    """A format that can also read a whole chunk by column, which is many times faster."""

    def read_columns(self, chunk: Any) -> Columns:
        """The same samples as `read`.

        Raises:
            ValueError: a row of the chunk is faulty or must be read by itself: use `read` instead.
        """
        ...


@runtime_checkable
class Nesting(Protocol):
    """A format whose cells may hold lists or objects."""

    def nested(self, path: Path, options: Any) -> dict[str, str]:
        """Column of nested values -> why it cannot be in the schema."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A format whose cells may hold whole files."""

    def held(self, path: Path, options: Any) -> dict[str, list[Any]]:
        """Column whose cells hold files -> the first few that are not missing: bytes, or the path of a file."""
        ...


@runtime_checkable
class Leveled(Protocol):
    """A format that takes the labels of files from the folders that they are in."""

    def levels(self, path: Path) -> list[str]:
        """Sentences about folders whose names are dropped, and about files that are ignored."""
        ...


def source(name: str) -> Source:
    """The module of a format."""
    return load_module(f"stages.tables.sources.{file(name)}", Source)


def file(name: str) -> str:
    """The name of a format's module."""
    return _FILES.get(name, name)


def names() -> list[str]:
    """The names that `data.format` may take."""
    formats = {file: name for name, file in _FILES.items()}
    return sorted(formats.get(module.name, module.name) for module in pkgutil.iter_modules(__path__))


def two_columns(schema: Schema, name: str, *offered: str) -> tuple[str, str]:
    """The feature and the target, for a format with no other columns than those `offered`.

    Raises:
        UserError: the schema has other features.
    """
    if any(column.name not in offered for column in schema.features[1:]):
        names = ", ".join(column.name for column in schema.features)
        raise UserError(
            "params-one-feature",
            f"format {name} fills one feature column and the target, but schema.features has {names}",
        )
    return schema.features[0].name, schema.target.name


def check_names(names: list[str], where: str, hint: str = "") -> list[str]:
    """Check and return the names of a table's columns.

    Raises:
        UserError: one is blank, or two are equal.
    """
    for place, name in enumerate(names, 1):
        if not name:
            raise UserError("data-unnamed-column", f"{where}: column {place} has no name{hint and f': {hint}'}")
        if names.count(name) > 1:
            raise UserError("data-repeated-column", f"{where}: two columns are named {name!r}{hint and f': {hint}'}")
    return names


def wanted_columns(schema: Schema, there: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of the schema's columns, which a table must have.

    Raises:
        UserError: the table lacks one; the message names the nearest.
    """
    names = tuple(dict.fromkeys(column.name for column in (*schema.features, schema.target)))
    for name in names:
        require_column(name, there, where, "schema")
    return names


def require_same_columns(where: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError if the files of a table have different columns; name the differences by file.

    Args:
        where: the folder.
        columns: file -> the names of its columns.
    """
    usual = Counter(frozenset(names) for names in columns.values()).most_common(1)[0][0]
    differing = []
    for file, names in columns.items():
        more, fewer = [name for name in names if name not in usual], sorted(usual - set(names))
        parts = [f"also has {_few(more)}"] * bool(more) + [f"lacks {_few(fewer)}"] * bool(fewer)
        differing += [f"{file} {' and '.join(parts)}"] * bool(parts)
    if differing:
        shown = "; ".join(differing[:FEW]) + (f"; and {len(differing) - FEW:,} more" if len(differing) > FEW else "")
        raise UserError(
            "data-differing-columns",
            f"the files in {where} have different columns: {shown}: give all the same columns, or add the files that"
            " belong together by themselves",
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:FEW])) + (f" and {len(names) - FEW:,} more" if len(names) > FEW else "")


def require_column(name: str, there: Sequence[str], where: str, key: str) -> None:
    """Raise UserError if a table lacks a column that params.yaml names under `key`; suggest the nearest name."""
    if name not in there:
        close = difflib.get_close_matches(name, there, n=1)
        few = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
        hint = f"did you mean {close[0]!r}?" if close else f"it has {few or 'none'}"
        raise UserError(
            "params-unknown-column", f"{where} has no column {name!r}, which params.yaml names under {key}: {hint}"
        )


def with_column(schema: Schema, name: str) -> Schema:
    """The schema with one more category column, so that `chunks` reads that column too."""
    known = [column.name for column in (*schema.features, schema.target)]
    return schema if name in known else Schema((*schema.features, Column(name, "category")), schema.target)


def file_columns(schema: Schema) -> tuple[str, ...]:
    """The columns whose cells name a file: those whose raw values are bytes."""
    return tuple(column.name for column in schema.features if kind(column.kind).RAW == "bytes")


def number_columns(schema: Schema) -> tuple[str, ...]:
    """The columns whose raw values are numbers."""
    columns = {column.name: column for column in (*schema.features, schema.target)}
    return tuple(name for name, column in columns.items() if kind(column.kind).RAW == "float64")


def nested_message(name: str, what: Any) -> str:
    """Why a column of nested values cannot be read."""
    return f"the column {name!r} holds nested values ({what}): flatten it first"


def cell_path(folder: str, name: str | None) -> str | None:
    """The path of a file that a cell names relative to the table's folder.

    Raises:
        ValueError: the file lies outside that folder.
    """
    if name is None:
        return None
    path = os.path.normpath(os.path.join(folder, name))
    if os.path.isabs(name) or not path.startswith(os.path.join(os.path.normpath(folder), "")):
        raise ValueError(f"{name} lies outside the table's folder")
    return path


def split_named(word: str) -> str | None:
    """The split that a word such as "training" stands for, or None."""
    return next((split for split, words in _SPLITS.items() if word.lower() in words), None)


def split_in(name: str) -> str | None:
    """The split that a word in a file's name stands for, such as "train" in `adult-train`, or None."""
    return next((split for word in re.split(r"[-_. ]", name) if (split := split_named(word))), None)


@dataclass(frozen=True)
class NoOptions:
    """For a format without options."""


_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "t10k"),
}
