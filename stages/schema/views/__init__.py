"""How people see values: a module for each kind, found by its name. No view ships with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from stages.core.lookup import load_module

LETTERS = 24  # of a text that is drawn in one line


class View(Protocol):
    """A module of this folder. That of a target kind needs no `draw`."""

    def likely(self, values: Sequence[Any]) -> float:
        """How well a few cells, none of them missing, fit the kind: 0 to 1."""
        ...

    def draw(self, value: Any, axes: Any) -> None:
        """Draw a raw value on a matplotlib axes."""
        ...


def of(kind: str) -> View:
    """The view of a kind.

    Raises:
        ValueError: its file is missing or lacks a part.
    """
    return load_module(f"stages.schema.views.{kind}", View, optional=("draw",) if kind.startswith("target_") else ())


def draw_text(text: str, axes: Any) -> None:
    """Draw the beginning of a text in the middle of a matplotlib axes."""
    axes.text(0.5, 0.5, text[:LETTERS], ha="center", va="center", fontsize=7)
