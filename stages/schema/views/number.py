"""How a number is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stages.schema.kinds.number import is_finite, without_marks
from stages.schema.views import draw_text


def likely(values: Sequence[Any]) -> float:
    """High where nearly all are numbers with a fraction or many distinct ones, lower for a few whole numbers."""
    if not are_numbers(values):
        return 0.0
    return 0.9 if len(set(values)) > 10 or any("." in str(value) for value in values) else 0.5


def draw(value: float | None, axes: Any) -> None:
    """As text."""
    draw_text("missing" if value is None else f"{value:.6g}", axes)


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether nearly all cells are numbers, infinite ones and those with marks between thousands included."""
    return sum(map(_is_number, values)) >= 0.95 * len(values)


def _is_number(value: Any) -> bool:
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return is_finite(without_marks(value))
