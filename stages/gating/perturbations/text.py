"""Texts typed otherwise: in capitals, with more blanks, with slips of the fingers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.gating.perturbations import Change

_LETTERS = re.compile(r"[^\W\d_]{2,}")  # words that have two letters to swap


def case(value: str | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> str | None:
    """All in capitals, where that leaves every letter one letter."""
    return None if value is None else "".join(one.upper() if len(one.upper()) == 1 else one for one in value)


def blanks(value: str | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> str | None:
    """Two blanks for each, one at the start and one at the end."""
    return None if value is None else f" {value.replace(' ', '  ')} "


def typos(value: str | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> str | None:
    """In that share of words two neighbouring letters have changed places."""

    def slip(found: re.Match[str]) -> str:
        word = found.group()
        if draw.random() >= by:
            return word
        at = int(draw.integers(len(word) - 1))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return None if value is None else _LETTERS.sub(slip, value)


CHANGES = {"case": Change(case, 0.0), "blanks": Change(blanks, 0.0), "typos": Change(typos)}
