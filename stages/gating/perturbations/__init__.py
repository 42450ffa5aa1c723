"""Perturbations of raw values, by kind: a module for each kind, found by its name.

A kind that may be missing has the change `missing`; a kind without a module has no other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stages.core.lookup import NoModule, load_module
from stages.schema import Column, Schema, kind

Make = Callable[[Any, float, np.random.Generator, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Perturbation:
    """`make`: (raw value, by how much, random generator, fitted facts of its column) -> the changed value.

    `most`: the largest `by`; 0 if the change has no degree.
    """

    make: Make
    most: float = 1.0


class Perturbations(Protocol):
    """A module of this package."""

    CHANGES: Mapping[str, Perturbation]


@dataclass(frozen=True)
class PlannedPerturbation:
    """One change `by` a degree, of all `columns` at once. `key`: the column or kind that params give it for."""

    key: str
    name: str
    by: float
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        degree = f" by {self.by:g}" if of(self.columns[0].kind)[self.name].most else ""
        return f"{self.name} of {self.key}{degree}"

    def apply(self, raw: Mapping[str, Sequence[Any]], rows: Iterable[int]) -> dict[str, Sequence[Any]]:
        """Raw values {column: [n]} at `rows` of the table -> the changed values. Random numbers belong to a row."""
        seeds = [int(row) for row in rows]
        return {**raw, **{column.name: self._column(column, raw[column.name], seeds) for column in self.columns}}

    def _column(self, column: Column, values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
        make, salt = of(column.kind)[self.name].make, zlib.crc32(f"{column.name}/{self.name}".encode())
        draws = (np.random.default_rng((salt, row)) for row in rows)
        return [make(value, self.by, draw, column.fitted) for value, draw in zip(values, draws, strict=True)]


def of(name: str) -> dict[str, Perturbation]:
    """The changes of a kind, by name."""
    try:
        changes = load_module(f"stages.gating.perturbations.{name}", Perturbations).CHANGES
    except NoModule:
        changes = {}
    return {**changes, **({"missing": Perturbation(_missing)} if kind(name).OPTIONAL else {})}


def chosen(schema: Schema, listed: Mapping[str, Mapping[str, float]]) -> list[PlannedPerturbation]:
    """{column or kind: {change: by how much}} -> each change. An entry of a column replaces the entry of its kind."""
    names = {column.name for column in schema.features}
    planned = []
    for key, changes in listed.items():
        columns = tuple(
            column
            for column in schema.features
            if column.name == key or (key not in names and column.kind == key and column.name not in listed)
        )
        planned += [PlannedPerturbation(key, name, by, columns) for name, by in changes.items() if columns]
    return planned


def _missing(value: Any, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> Any:
    """Drop the value in a share `by` of rows."""
    return None if draw.random() < by else value
