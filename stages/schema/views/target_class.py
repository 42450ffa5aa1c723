"""How classes are seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def likely(values: Sequence[Any]) -> float:
    """Any cells may be classes; the fewer distinct ones, the likelier."""
    return max(0.2, 1 - len({str(value) for value in values}) / max(1, len(values)))
