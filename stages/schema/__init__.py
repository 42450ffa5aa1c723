"""The schema of a data set: feature columns and one target, each of a kind. Ships with every exported model."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Column:
    """One column of the table. `kind` is the name of its file in `stages/schema/kinds/`."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """The type of one row of an array, without the batch axis."""

    dtype: str
    shape: tuple[int, ...]
    optional: bool = False
    layout: str = ""  # Triton's input format, such as FORMAT_NHWC
    labels: tuple[str, ...] = ()  # the classes, for Triton's label file
    scale: float = 1.0  # the unit of the tolerance when outputs are compared


@dataclass(frozen=True)
class Block:
    """The columns that form one array: all columns of a packed kind together, any other column alone."""

    name: str
    columns: tuple[Column, ...]
    tensor: Tensor


class TooMuch(ValueError):
    """The values of a request would together keep a server busy for too long."""


class Kind(Protocol):
    """A feature kind: a module of `stages/schema/kinds/`. Each function raises ValueError for a wrong value."""

    RAW: str  # "bytes", "str" or "float64": the type of a cell in the table, on the wire and in the client
    PACKED: bool
    OPTIONAL: bool
    ENCODER: str
    Options: type

    def raw(self, value: Any) -> bytes | str | float | None:
        """Convert a plain Python value to one for the table; None is missing."""

    def facts(self, values: Iterable[Any]) -> dict[str, np.ndarray]:
        """Facts about values for validation: name -> [N]."""

    def fit(self, chunks: Iterable[Any], options: Any) -> dict[str, Any]:
        """Fit the transformation to chunks of training values; the result is plain JSON."""

    def transform(self, values: Any, fitted: dict[str, Any]) -> np.ndarray:
        """Convert [N] values to numbers or codes [N, *shape]."""

    def tensor(self, fitted: dict[str, Any]) -> Tensor:
        """The tensor that one value becomes."""


class Target(Protocol):
    """A target kind: a module `target_*` of `stages/schema/kinds/`.

    It may have `strata(values) -> [N]`, the stratum of each value for `split: {by: strata}`.
    """

    RAW: str
    SPOILED: str  # what `spoiled` does to predictions, such as "labels shuffled"
    Options: type

    def raw(self, value: Any) -> str | float | None:
        """Convert a plain Python value to one for the table; None is missing."""

    def fit(self, chunks: Iterable[Any], options: Any) -> dict[str, Any]:
        """Fit the transformation to chunks of training values; the result is plain JSON."""

    def transform(self, values: Any, fitted: dict[str, Any]) -> np.ndarray:
        """Convert [N] values to what the loss takes, [N]."""

    def outputs(self, fitted: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a model's prediction, by name."""

    def spoiled(self, fitted: dict[str, Any]) -> dict[str, tuple[list[int], float, float]]:
        """How a control spoils each output: the order of its values, a factor and a summand."""

    def predictions(self, outputs: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> list[dict[str, Any]]:
        """Convert a model's outputs to a plain answer for each row."""

    def agree(
        self, live: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], fitted: dict[str, Any]
    ) -> np.ndarray:
        """Whether two models' outputs mean the same answer, bool [N]."""


@runtime_checkable
class Vectorized(Protocol):
    """A kind or target kind that converts a column of numbers at once, and text as the number that float() reads."""

    def raws(self, values: np.ndarray) -> np.ndarray:
        """`raw` of each value, float64 [N] -> float64 [N]; NaN is missing.

        Raises:
            ValueError: `raw` rejects one of them.
        """
        ...


@runtime_checkable
class Bounded(Protocol):
    """A kind whose values may take much longer to transform than their size suggests."""

    def bounded(self, fitted: dict[str, Any], rows: int) -> dict[str, Any]:
        """`fitted` with a bound on the cost of a request of at most `rows`, beyond which `transform` raises TooMuch."""
        ...


@runtime_checkable
class Vocabulary(Protocol):
    """A kind of words, of which a client can tell whether a model knows them."""

    def public(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """The part of `fitted` that the model's metadata describe to clients."""
        ...

    def unknown(self, described: dict[str, Any]) -> Callable[[Any], bool] | None:
        """Whether a raw value is unknown to the model that `public` describes; None if that cannot be told."""
        ...


@runtime_checkable
class Received(Protocol):
    """A kind of bytes that a request may encode, such as base64 in JSON."""

    def received(self, value: bytes) -> bytes:
        """Decode a value of a request; return bytes that are not encoded as they are."""
        ...


def kind(name: str) -> Kind:
    """The module of a feature kind."""
    return cast(Kind, importlib.import_module(f"stages.schema.kinds.{name}"))


def target_kind(name: str) -> Target:
    """The module of a target kind; `name` starts with `target_`."""
    return cast(Target, importlib.import_module(f"stages.schema.kinds.{name}"))


MISSING: dict[str, Any] = {"bytes": b"", "str": "", "float64": np.nan}  # RAW -> a missing value on the wire
# Outputs of every response: the release's 12 hex digits as ASCII, and an id that no other response has.
IDENTIFIERS = {"release": Tensor("uint8", (12,)), "answer_id": Tensor("uint8", (16,))}


@dataclass(frozen=True)
class Schema:
    """Feature columns and one target."""

    features: tuple[Column, ...]
    target: Column

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read `schema.json`."""
        return cls.parse(Path(path).read_text(encoding="utf-8"))

    def dump(self, path: Path) -> None:
        """Write `schema.json`; equal schemas give equal bytes."""
        Path(path).write_text(self.text(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def parse(cls, text: str) -> Schema:
        """Parse what `text` has written."""
        tree = json.loads(text)
        return cls(tuple(Column(**column) for column in tree["features"]), Column(**tree["target"]))

    def text(self, indent: int | None = None) -> str:
        """The schema as JSON."""
        tree = {"features": [asdict(column) for column in self.features], "target": asdict(self.target)}
        return json.dumps(tree, indent=indent, ensure_ascii=False)

    def public(self) -> Schema:
        """The part that a client needs to send raw values and read predictions.

        Of what was fitted to features it has only which words are known.
        """
        features = (
            replace(column, fitted=module.public(column.fitted) if isinstance(module, Vocabulary) else {})
            for column in self.features
            for module in (kind(column.kind),)
        )
        return Schema(tuple(features), self.target)

    def bounded(self, rows: int) -> Schema:
        """The schema for a server, which bounds the cost of one request of at most `rows`."""
        features = (
            replace(column, fitted=module.bounded(column.fitted, rows)) if isinstance(module, Bounded) else column
            for column in self.features
            for module in (kind(column.kind),)
        )
        return replace(self, features=tuple(features))

    def blocks(self) -> tuple[Block, ...]:
        """The arrays of this data set, in order of first appearance.

        Raises:
            ValueError: two blocks would have the same name.
        """
        return tuple(Block(name, columns, _tensor(columns)) for name, columns in self.groups().items())

    def groups(self) -> dict[str, tuple[Column, ...]]:
        """Name -> columns of each block, which needs no fitted values.

        Raises:
            ValueError: two blocks would have the same name.
        """
        groups: dict[tuple[bool, str], list[Column]] = {}
        for column in self.features:
            packed = kind(column.kind).PACKED
            groups.setdefault((packed, column.kind if packed else column.name), []).append(column)
        names = [name for _, name in groups]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the column {name!r} has the name of a kind whose columns form one array: rename it")
        return {name: tuple(columns) for (_, name), columns in groups.items()}

    def inputs(self) -> dict[str, Tensor]:
        """Column -> the raw value that a client sends, of shape (1,)."""
        modules = {column.name: kind(column.kind) for column in self.features}
        return {name: Tensor(module.RAW, (1,), optional=module.OPTIONAL) for name, module in modules.items()}

    def outputs(self) -> dict[str, Tensor]:
        """Name -> output of the model."""
        return target_kind(self.target.kind).outputs(self.target.fitted)

    def encode(self, raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Raw values {column: [N]} to arrays {block: [N, *shape]}. All values of an absent optional column are missing.

        Raises:
            ValueError: a column is unknown, missing, or has a value that its kind rejects; the message names it.
        """
        known = [column.name for column in self.features]
        for name in raw:
            if name not in known:
                raise ValueError(f"unknown column {name!r}: this model takes {', '.join(known)}")
        rows = len(next(iter(raw.values()))) if raw else 0
        return self.transform({column.name: _raws(column, raw, rows) for column in self.features})

    def transform(self, raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`encode` for values {column: [N]} as the table stores them."""
        return {
            block.name: _join([_array(column, raw[column.name]) for column in block.columns]) for block in self.blocks()
        }


def _tensor(columns: tuple[Column, ...]) -> Tensor:
    """The tensor of a block's columns, joined along the last axis."""
    first = kind(columns[0].kind).tensor(columns[0].fitted)
    if not kind(columns[0].kind).PACKED:
        return first
    width = sum(kind(column.kind).tensor(column.fitted).shape[-1] for column in columns)
    return Tensor(first.dtype, (*first.shape[:-1], width), layout=first.layout)


def _raws(column: Column, raw: Mapping[str, Any], rows: int) -> list[Any]:
    """A column's values as the table stores them, from those of a client, which may leave out the column."""
    module = kind(column.kind)
    if column.name in raw:
        values = raw[column.name]
    elif module.OPTIONAL:
        values = [MISSING[module.RAW]] * rows
    else:
        raise ValueError(f"the column {column.name!r} is missing")
    try:
        return [module.raw(value) for value in values]
    except ValueError as error:
        raise ValueError(f"{column.name}: {error}") from error


def _array(column: Column, values: Any) -> np.ndarray:
    try:
        return kind(column.kind).transform(values, column.fitted)
    except TooMuch as error:
        raise TooMuch(f"{column.name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{column.name}: {error}") from error


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
