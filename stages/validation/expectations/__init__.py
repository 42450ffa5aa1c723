"""What is expected of a column: a module for each kind, found by its name; and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from stages.core.lookup import load_module

Suite = list[tuple[str, dict[str, Any]]]  # Great Expectations' names with their arguments


class Expectations(Protocol):
    """A module of this folder."""

    Options: type

    def expectations(self, column: str, options: Any) -> Suite:
        """The expectations of the column and its facts, as plain data."""
        ...

    def infer(self, column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Options that a first data set meets with a margin, from its columns and facts [N] as pandas Series."""
        ...


def of(kind: str) -> Expectations:
    """The module of a kind.

    Raises:
        ValueError: its file is missing or lacks a part.
    """
    return load_module(f"stages.validation.expectations.{kind}", Expectations)
