"""Boosted trees, a yardstick for the network, by the target's kind: a module for each, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stages.core.lookup import load_module
from stages.schema import Column

MANY = 5000  # rows, from which on finer bins are worth their time
BUDGET = 4.0  # seconds of one core for each setting, by the constants below, which were measured
PER_ROW, PER_BIN = 7e-9, 4e-9  # seconds for each column of each tree
STEPS = 20, 200  # the fewest and the most


@dataclass(frozen=True)
class Settings:
    """Of boosting: `leaves` of each tree, the fewest `rows` of a leaf, the number of `steps` and their `rate`."""

    leaves: int
    rows: int
    steps: int
    rate: float
    bins: int

    def arguments(self, x: np.ndarray, categories: list[int]) -> dict[str, Any]:
        """The arguments of scikit-learn's estimators. A column with more codes than bins counts as numbers."""
        few = [column for column in categories if x[:, column].max() < self.bins]
        return {
            "max_leaf_nodes": self.leaves,
            "min_samples_leaf": self.rows,
            "max_iter": self.steps,
            "learning_rate": self.rate,
            "max_bins": self.bins,
            "categorical_features": few,
            "early_stopping": False,
            "random_state": 0,
        }


class Trees(Protocol):
    """A module of this package."""

    def models(
        self, x: np.ndarray, y: np.ndarray, categories: list[int], target: Column
    ) -> Iterator[Callable[[np.ndarray], Iterator[np.ndarray]]]:
        """Trees for x [N, C] with truth y; the columns `categories` are codes.

        Each model is a function from features [M, C] to predictions [M, ...] after each step, as the network's.
        """
        ...


def of(target: Column) -> Trees:
    """The trees of a target's kind."""
    return load_module(f"stages.trees.{target.kind}", Trees)


def grid(x: np.ndarray, outputs: int) -> Iterator[Settings]:
    """The settings to try for x [N, C], without those that take too long. A step fits a tree for each output."""
    bins = 255 if len(x) > MANY else 63
    for leaves, rows in ((31, 20), (6, 5)):
        grown = min(leaves, max(2, len(x) // rows))
        tree = x.shape[1] * (PER_ROW * len(x) + PER_BIN * 2 * grown * bins)
        fewest, most = STEPS
        steps = min(most, int(BUDGET / (tree * outputs)))
        if steps >= fewest:
            yield Settings(leaves, rows, steps, 0.1 if steps > most // 2 else 0.3, bins)
