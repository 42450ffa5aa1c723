"""How a timestamp is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.schema.kinds.timestamp import ISO
from stages.schema.views import draw_text


def likely(values: Sequence[Any]) -> float:
    """High where all are ISO dates or timestamps, else 0."""
    return 0.95 if values and all(ISO.fullmatch(str(value).strip()) for value in values) else 0.0


def draw(value: str | None, axes: Any) -> None:
    """As text."""
    draw_text("missing" if value is None else value, axes)
