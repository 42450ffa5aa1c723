"""Perturbations of texts: capitals, extra blanks and typos."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.gating.perturbations import Perturbation

_LETTERS = re.compile(r"[^\W\d_]{2,}")  # words that have two letters to swap


def case(value: str | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> str | None:
    """Write in capitals, except letters whose capital is several letters."""
    return None if value is None else "".join(char.upper() if len(char.upper()) == 1 else char for char in value)


def blanks(value: str | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> str | None:
    """Double each blank, and add one at the start and one at the end."""
    return None if value is None else f" {value.replace(' ', '  ')} "


def typos(value: str | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> str | None:
    """Swap two neighboring letters in a share `by` of the words."""

    def slip(match: re.Match[str]) -> str:
        word = match.group()
        if draw.random() >= by:
            return word
        at = int(draw.integers(len(word) - 1))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return None if value is None else _LETTERS.sub(slip, value)


CHANGES = {"case": Perturbation(case, 0.0), "blanks": Perturbation(blanks, 0.0), "typos": Perturbation(typos)}
