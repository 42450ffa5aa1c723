"""How a number to predict is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.schema.views.number import are_numbers


def likely(values: Sequence[Any]) -> float:
    """High for many distinct numbers, low for few."""
    if not are_numbers(values):
        return 0.0
    return 0.9 if len(set(values)) > 20 else 0.1
