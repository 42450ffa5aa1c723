"""How a text is seen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any


def likely(values: Sequence[Any]) -> float:
    """High where most have several words and many are distinct."""
    several = sum(len(str(value).split()) >= 3 for value in values) / max(1, len(values))
    return 0.85 if several > 0.5 and len({str(value) for value in values}) > 20 else 0.2 * several


def draw(value: str | None, axes: Any) -> None:
    """Its beginning, wrapped."""
    shown = "\n".join(textwrap.wrap((value or "missing")[:140], 22))
    axes.text(0.5, 0.5, shown, ha="center", va="center", fontsize=6, parse_math=False)
