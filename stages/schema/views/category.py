"""How a category is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.schema.views import draw_text


def likely(values: Sequence[Any]) -> float:
    """High for few distinct words, 0 where more than half are distinct."""
    distinct = len({str(value) for value in values})
    return 0.8 if distinct <= max(20, len(values) / 20) else 0.3 if distinct <= len(values) / 2 else 0.0


def draw(value: str | None, axes: Any) -> None:
    """As text."""
    draw_text("missing" if value is None else value, axes)
