"""What may happen to raw values on their way to a model: a module for each kind, found by its name. Here is the rest.

A kind without a file has no changes of its own; where it may be missing, `missing` is one.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.schema import Column, Schema, kind

Make = Callable[[Any, float, np.random.Generator, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Change:
    """`make`: a raw value, by how much, random numbers, what was fitted to its column -> the value changed.

    `most`: of what it may be changed `by`; 0 where there is no more or less of it.
    """

    make: Make
    most: float = 1.0


@dataclass(frozen=True)
class Changed:
    """One change `by` an amount, of all `columns` at once. `key`: what params say it of, a column or a kind."""

    key: str
    name: str
    by: float
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        amount = f" by {self.by:g}" if of(self.columns[0].kind)[self.name].most else ""
        return f"{self.name} of {self.key}{amount}"

    def apply(self, raw: Mapping[str, Sequence[Any]], rows: Iterable[int]) -> dict[str, Sequence[Any]]:
        """Raw values {column: [n]} at `rows` of the table -> the same, changed; each row in its own way, always."""
        numbers = [int(row) for row in rows]
        return {**raw, **{column.name: self._one(column, raw[column.name], numbers) for column in self.columns}}

    def _one(self, column: Column, values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
        make, salt = of(column.kind)[self.name].make, zlib.crc32(f"{column.name}/{self.name}".encode())
        draws = (np.random.default_rng((salt, row)) for row in rows)
        return [make(value, self.by, draw, column.fitted) for value, draw in zip(values, draws, strict=True)]


def of(name: str) -> dict[str, Change]:
    """The changes of a kind, by their names."""
    try:
        own: dict[str, Change] = importlib.import_module(f"stages.gating.perturbations.{name}").CHANGES
    except ModuleNotFoundError as error:
        if error.name != f"stages.gating.perturbations.{name}":
            raise
        own = {}
    return {**own, **({"missing": Change(_missing)} if kind(name).OPTIONAL else {})}


def chosen(schema: Schema, said: Mapping[str, Mapping[str, float]]) -> list[Changed]:
    """{column or kind: {change: by how much}} -> each change. A column's own entry takes the place of its kind's."""
    names = {column.name for column in schema.features}
    found = []
    for key, changes in said.items():
        columns = tuple(
            column
            for column in schema.features
            if column.name == key or (key not in names and column.kind == key and column.name not in said)
        )
        found += [Changed(key, name, by, columns) for name, by in changes.items() if columns]
    return found


def _missing(value: Any, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> Any:
    """Missing in that share of rows."""
    return None if draw.random() < by else value
