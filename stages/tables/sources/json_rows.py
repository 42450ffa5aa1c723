"""JSON: an object or an array for each sample, either one on each line or in a list for each split."""

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
from stages.tables.sources import INTACT, Reject, Sample, cell_path, file_columns, split_in, split_named

LAYOUT = "a .jsonl file with an object on each line, or a .json file with a list of rows for each split"
CHUNK_ROWS = 512
_WHAT: dict[type, str] = {dict: "an object", list: "an array"}


@dataclass(frozen=True)
class Options:
    """How the files are written."""

    columns: tuple[str, ...] = ()  # the names of the cells, if a row is an array
    lists: dict[str, str] = field(default_factory=dict)  # list of a .json file -> split; by default lists named so

    def __post_init__(self) -> None:
        for name, split in self.lists.items():
            if split not in ("train", "val", "test"):
                raise ValueError(f"lists.{name} must be train, val or test, not {split!r}")


class Chunk(NamedTuple):
    """Rows of one list or file, from number `first`."""

    name: str
    split: str | None
    first: int
    rows: list[Any]  # parsed rows, or lines as bytes
    columns: tuple[str, ...]
    wanted: tuple[str, ...]
    folder: str
    file_columns: tuple[str, ...]  # columns whose cells name a file in `folder`


def claims(path: Path) -> bool:
    """Whether a file, or one in the folder, has an ending of this format."""
    return bool(_files(path))


def columns(path: Path, options: Options) -> list[str]:
    """The columns named in the options, else the keys of the first row.

    Raises:
        UserError: the first row is not an object.
    """
    return list(options.columns) or list(_first(path, options))


def nested(path: Path, options: Options) -> dict[str, str]:
    """Column of nested values in the first row -> why it cannot be read."""
    return {
        name: sources.nested_message(name, _WHAT[type(cell)])
        for name, cell in _first(path, options).items()
        if type(cell) in _WHAT
    }


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """Chunks of at most 512 rows. Lines are read as a stream, a .json file at once.

    Raises:
        UserError: a file cannot be read, or lacks a list that the options name.
    """
    wanted = tuple(column.name for column in (*schema.features, schema.target))
    tables = _files(path)
    if not tables:
        raise UserError("data-other-format", f"{path} holds no JSON file. json expects {LAYOUT}")
    for file in tables:
        for name, split, rows in _lists(file, options):
            first, rest = 1, iter(rows)
            while chunk := list(islice(rest, CHUNK_ROWS)):
                yield Chunk(name, split, first, chunk, options.columns, wanted, str(file.parent), file_columns(schema))
                first += len(chunk)


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """Yield a chunk's rows."""
    for number, row in enumerate(chunk.rows, chunk.first):
        source = f"{chunk.name} row {number}"
        try:
            values = _cells(json.loads(row) if isinstance(row, bytes) else row, chunk.columns)
            cells = {name: _cell(name, values.get(name)) for name in chunk.wanted}
            cells |= {name: cell_path(chunk.folder, cells[name]) for name in chunk.file_columns}
            yield Sample(source, chunk.split, cells)
        except json.JSONDecodeError as error:
            yield Reject(source, f"is not JSON: {error.msg} at character {error.pos}")
        except UnicodeDecodeError:
            yield Reject(source, "is not UTF-8")
        except ValueError as error:
            yield Reject(source, str(error))


def _first(path: Path, options: Options) -> dict[str, Any]:
    """The cells of the first row; {} if it does not match the options."""
    for _, _, rows in _lists(_files(path)[0], options):
        for row in rows:
            try:
                return _cells(json.loads(row) if isinstance(row, bytes) else row, options.columns)
            except json.JSONDecodeError as error:
                raise UserError(
                    "data-damaged", f"{path} cannot be read: its first row is not JSON ({error}): {INTACT}"
                ) from error
            except ValueError:
                break
    if options.columns:
        return {}
    raise UserError("data-not-objects", f"{path} has no row that is an object: name its cells in data.options.columns")


def _files(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in (".json", ".jsonl", ".ndjson") and file.is_file()]


def _lists(file: Path, options: Options) -> Iterator[tuple[str, str | None, Any]]:
    try:
        if file.suffix.lower() != ".json":
            with file.open("rb") as lines:
                yield file.name, split_in(file.stem), (line.strip() for line in lines if line.strip())
            return
        with file.open(encoding="utf-8-sig") as opened:
            tree = json.load(opened)
    except (OSError, ValueError) as error:
        raise UserError("data-unreadable", f"{file} cannot be read: {error}: check its rights, or {INTACT}") from error
    if isinstance(tree, list):
        yield file.name, split_in(file.stem), tree
        return
    if not isinstance(tree, dict):
        raise UserError("data-no-rows", f"{file} holds no rows. json expects {LAYOUT}")
    splits = options.lists or {name: split for name in tree if (split := split_named(name))}
    for name, split in splits.items():
        if not isinstance(tree.get(name), list):
            names = ", ".join(name for name, rows in tree.items() if isinstance(rows, list)) or "none"
            raise UserError(
                "data-unknown-list", f"{file} has no list {name!r}, which data.options.lists names: there is {names}"
            )
        yield f"{file.name} {name}", split, tree[name]
    if not splits:
        raise UserError(
            "data-unknown-list",
            f"{file} has no list train, val or test: set data.options.lists, one of {', '.join(tree)}",
        )


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
        raise ValueError(sources.nested_message(name, _WHAT[type(value)]))
    return value
