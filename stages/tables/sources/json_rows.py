"""JSON: an object or an array for each sample, on a line of its own or in one list for each split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables import sources
from stages.tables.sources import Reject, Sample, beside, files, split_in, split_named

LAYOUT = "a .jsonl file with an object on each line, or a .json file with a list of rows for each split"
CHUNK_ROWS = 512
_WHAT = {dict: "an object", list: "an array"}


@dataclass(frozen=True)
class Options:
    """How the files are written."""

    columns: tuple[str, ...] = ()  # names of the cells, where a row is an array
    lists: dict[str, str] = field(default_factory=dict)  # of a .json file, and their splits; without: those named so

    def __post_init__(self) -> None:
        for name, split in self.lists.items():
            if split not in ("train", "val", "test"):
                raise ValueError(f"lists.{name} must be train, val or test, not {split!r}")


class Chunk(NamedTuple):
    """Rows of one list or file, from number `first`."""

    name: str
    split: str | None
    first: int
    rows: list[Any]  # parsed, or lines as bytes
    columns: tuple[str, ...]
    wanted: tuple[str, ...]
    folder: str
    files: tuple[str, ...]  # columns whose cells name a file there


def claims(path: Path) -> bool:
    """Whether a file is named like one, or one in the folder is."""
    return bool(_files(path))


def columns(path: Path, options: Options) -> list[str]:
    """Those named in the options, else the keys of the first row.

    Raises:
        UserError: that is none.
    """
    return list(options.columns) or list(_first(path, options))


def nested(path: Path, options: Options) -> dict[str, str]:
    """By name, why a column cannot be read, from the first row's cells."""
    return {
        name: sources.nested(name, _WHAT[type(cell)])
        for name, cell in _first(path, options).items()
        if type(cell) in _WHAT
    }


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """At most 512 rows each; lines are read as a stream, a .json file as a whole.

    Raises:
        UserError: a file cannot be read, or a list that is wanted is not in it.
    """
    wanted = tuple(column.name for column in (*schema.features, schema.target))
    found = _files(path)
    if not found:
        raise UserError(f"{path} holds no JSON file. json expects {LAYOUT}")
    for file in found:
        for name, split, rows in _lists(file, options):
            first, rest = 1, iter(rows)
            while some := list(islice(rest, CHUNK_ROWS)):
                yield Chunk(name, split, first, some, options.columns, wanted, str(file.parent), files(schema))
                first += len(some)


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """A chunk's rows."""
    for number, row in enumerate(chunk.rows, chunk.first):
        source = f"{chunk.name} row {number}"
        try:
            values = _cells(json.loads(row) if isinstance(row, bytes) else row, chunk.columns)
            cells = {name: _cell(name, values.get(name)) for name in chunk.wanted}
            cells |= {name: beside(chunk.folder, cells[name]) for name in chunk.files}
            yield Sample(source, chunk.split, cells)
        except json.JSONDecodeError as error:
            yield Reject(source, f"is no JSON: {error.msg} at character {error.pos}")
        except UnicodeDecodeError:
            yield Reject(source, "is not UTF-8")
        except ValueError as error:
            yield Reject(source, str(error))


def _first(path: Path, options: Options) -> dict[str, Any]:
    """The cells of the first row; none where it is not as the options say."""
    for _, _, rows in _lists(_files(path)[0], options):
        for row in rows:
            try:
                return _cells(json.loads(row) if isinstance(row, bytes) else row, options.columns)
            except json.JSONDecodeError as error:
                raise UserError(f"{path} cannot be read: its first row is no JSON ({error})") from error
            except ValueError:
                break
    if options.columns:
        return {}
    raise UserError(f"{path} has no row that is an object: name its cells in data.options.columns")


def _files(path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in found if file.suffix.lower() in (".json", ".jsonl", ".ndjson") and file.is_file()]


def _lists(file: Path, options: Options) -> Iterator[tuple[str, str | None, Any]]:
    try:
        if file.suffix.lower() != ".json":
            with file.open("rb") as lines:
                yield file.name, split_in(file.stem), (line.strip() for line in lines if line.strip())
            return
        with file.open(encoding="utf-8-sig") as whole:
            tree = json.load(whole)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if isinstance(tree, list):
        yield file.name, split_in(file.stem), tree
        return
    if not isinstance(tree, dict):
        raise UserError(f"{file} holds no rows. json expects {LAYOUT}")
    splits = options.lists or {name: split for name in tree if (split := split_named(name))}
    for name, split in splits.items():
        if not isinstance(tree.get(name), list):
            there = ", ".join(name for name, rows in tree.items() if isinstance(rows, list)) or "none"
            raise UserError(f"{file} has no list {name!r}, which data.options.lists names: there is {there}")
        yield f"{file.name} {name}", split, tree[name]
    if not splits:
        raise UserError(f"{file} has no list train, val or test: say data.options.lists, one of {', '.join(tree)}")


def _cells(row: Any, columns: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    if not isinstance(row, list):
        raise ValueError("is neither an object nor an array")
    if len(row) != len(columns):
        raise ValueError(f"has {len(row)} cells, and data.options.columns names {len(columns)}")
    return dict(zip(columns, row, strict=True))


def _cell(name: str, value: Any) -> Any:
    if type(value) in _WHAT:
        raise ValueError(sources.nested(name, _WHAT[type(value)]))
    return value
