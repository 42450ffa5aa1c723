"""Boosted trees, the baseline for tables, by the target's kind: a module for each, found by its name."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from stages.core.lookup import load_module
from stages.schema import Column


class Trees(Protocol):
    """A module of this package."""

    def predict(self, x: np.ndarray, y: np.ndarray, categories: list[int], new: np.ndarray) -> dict[str, np.ndarray]:
        """Fit x [N, C] with truth y; the columns `categories` are codes. Outputs for `new` [M, C], as the head's."""
        ...


def of(target: Column) -> Trees:
    """The trees of a target's kind."""
    return load_module(f"stages.trees.{target.kind}", Trees)
