"""How people see values: a module for each kind, found by its name. No view ships with a model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

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
    file = f"stages/schema/views/{kind}.py"
    try:
        module = importlib.import_module(f"stages.schema.views.{kind}")
    except ModuleNotFoundError as error:
        if error.name != f"stages.schema.views.{kind}":
            raise
        raise ValueError(f"{file} is missing: see the other files there") from None
    parts = ("likely",) if kind.startswith("target_") else ("likely", "draw")
    if lacking := [part for part in parts if not hasattr(module, part)]:
        raise ValueError(f"{file} lacks {', '.join(lacking)}: see what the other files there have")
    return cast(View, module)


def draw_text(text: str, axes: Any) -> None:
    """Draw the beginning of a text in the middle of a matplotlib axes."""
    axes.text(0.5, 0.5, text[:LETTERS], ha="center", va="center", fontsize=7)
