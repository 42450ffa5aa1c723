"""Raw formats: a module for each, found by the name in `data.format`. Here is what they have in common."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from stages.core.errors import UserError
from stages.schema import Column, Schema, kind

if TYPE_CHECKING:
    import pyarrow as pa

_FILES = {
    "csv": "delimited",
    "json": "json_rows",
}  # the others bear their formats' names; csv and json are Python's own
TABLES = ("csv", "parquet", "json")  # formats of rows whose cells have names


class Sample(NamedTuple):
    """One sample as it was found."""

    source: str  # the place it comes from, readable and unlike any other sample's
    split: str | None  # "train", "val" or "test" where the data set says so itself
    values: dict[str, Any]  # by column, as people hold them: a path, an array, a number


class Reject(NamedTuple):
    """Something that should have been a sample and is none."""

    source: str
    reason: str


class Columns(NamedTuple):
    """Many samples of one split by column; null is None."""

    sources: pa.Array  # text [N]
    split: str | None
    values: dict[str, pa.Array]  # [N] each, texts or what else the format holds
    rejects: list[Reject]  # found beside them


class Source(Protocol):
    """A format. A chunk is the work that one process does at a time: small, picklable, of whatever type suits."""

    LAYOUT: str  # what it looks like on disk, in a few words
    Options: type  # what `data.options` may say of it

    def claims(self, path: Path) -> bool:
        """Whether `path` looks like this format; a glance, not a check."""
        ...

    def columns(self, path: Path, options: Any) -> list[str]:
        """The names of a table's columns, in order; a format that is no table has none."""
        ...

    def chunks(self, path: Path, schema: Schema, options: Any) -> Iterator[Any]:
        """Everything at `path` as chunks, lazily and in an order that depends on the data alone.

        Raises:
            UserError: `path` is not of this format, or cannot fill the columns of `schema`.
        """
        ...

    def read(self, chunk: Any) -> Iterator[Sample | Reject]:
        """A chunk's samples, one after another, so that no more than one need be held."""
        ...


@runtime_checkable
class Columnar(Protocol):
    """A format that can also give a whole chunk by column, which is many times as fast."""

    def read_columns(self, chunk: Any) -> Columns:
        """What `read` gives.

        Raises:
            ValueError: a row of the chunk is at fault, or must be looked at by itself: take `read`.
        """
        ...


@runtime_checkable
class Nesting(Protocol):
    """A format whose columns may hold more than single values."""

    def nested(self, path: Path, options: Any) -> dict[str, str]:
        """By name, why a column cannot be one of the schema's."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A format whose cells may hold whole files."""

    def held(self, path: Path, options: Any) -> dict[str, list[Any]]:
        """Of each column whose cells do, the first few that are not missing: bytes, or the path of a file."""
        ...


def source(name: str) -> Source:
    """The module of a format."""
    return cast(Source, importlib.import_module(f"stages.tables.sources.{file(name)}"))


def file(name: str) -> str:
    """The name of a format's module."""
    return _FILES.get(name, name)


def names() -> list[str]:
    """The names that `data.format` may take."""
    formats = {file: name for name, file in _FILES.items()}
    return sorted(formats.get(module.name, module.name) for module in pkgutil.iter_modules(__path__))


def two_columns(schema: Schema, name: str, *offered: str) -> tuple[str, str]:
    """The feature and the target, for a format that holds nothing else but what is `offered`.

    Raises:
        UserError: the schema has several features.
    """
    if any(column.name not in offered for column in schema.features[1:]):
        names = ", ".join(column.name for column in schema.features)
        raise UserError(f"format {name} fills one feature column and the target, but schema.features has {names}")
    return schema.features[0].name, schema.target.name


def named(names: list[str], where: str, hint: str = "") -> list[str]:
    """The names of a table's columns.

    Raises:
        UserError: one is blank, or two are alike.
    """
    for place, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{where}: column {place} has no name{hint and f': {hint}'}")
        if names.count(name) > 1:
            raise UserError(f"{where}: two columns are named {name!r}{hint and f': {hint}'}")
    return names


def wanted(schema: Schema, there: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of the schema's columns.

    Raises:
        UserError: a table has no column of such a name; the nearest is named.
    """
    names = tuple(dict.fromkeys(column.name for column in (*schema.features, schema.target)))
    for name in names:
        has(name, there, where, "schema")
    return names


def has(name: str, there: Sequence[str], where: str, key: str) -> None:
    """Raise UserError where a table has no column of a name that params have under `key`; the nearest is named."""
    if name not in there:
        close = difflib.get_close_matches(name, there, n=1)
        few = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
        hint = f"did you mean {close[0]!r}?" if close else f"it has {few or 'none'}"
        raise UserError(f"{where} has no column {name!r}, which params.yaml names under {key}: {hint}")


def asking(schema: Schema, name: str) -> Schema:
    """The schema with one more column of words, for `chunks` to fill."""
    known = [column.name for column in (*schema.features, schema.target)]
    return schema if name in known else Schema((*schema.features, Column(name, "category")), schema.target)


def files(schema: Schema) -> tuple[str, ...]:
    """The columns of a table whose cells name a file: those whose raw values are bytes."""
    return tuple(column.name for column in schema.features if kind(column.kind).RAW == "bytes")


def numeric(schema: Schema) -> tuple[str, ...]:
    """The columns of a table whose raw values are numbers."""
    columns = {column.name: column for column in (*schema.features, schema.target)}
    return tuple(name for name, column in columns.items() if kind(column.kind).RAW == "float64")


def nested(name: str, what: Any) -> str:
    """Why a column of other than single values cannot be read."""
    return f"the column {name!r} holds nested values ({what}): flatten it first"


def beside(folder: str, name: str | None) -> str | None:
    """The path of a file that a cell names, relative to the table's own folder.

    Raises:
        ValueError: it lies elsewhere.
    """
    if name is None:
        return None
    path = os.path.normpath(os.path.join(folder, name))
    if os.path.isabs(name) or not path.startswith(os.path.join(os.path.normpath(folder), "")):
        raise ValueError(f"{name} lies outside the table's folder")
    return path


def split_named(word: str) -> str | None:
    """The split that a folder or file name stands for."""
    return next((split for split, words in _SPLITS.items() if word.lower() in words), None)


def split_in(name: str) -> str | None:
    """The split that a word of a file's name stands for, such as that of `adult-train`."""
    return next((split for word in re.split(r"[-_. ]", name) if (split := split_named(word))), None)


@dataclass(frozen=True)
class NoOptions:
    """Of a format that leaves nothing to say."""


_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "t10k"),
}
