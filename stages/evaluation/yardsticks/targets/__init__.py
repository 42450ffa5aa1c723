"""The constant answer, linear models and a loss, by the target's kind: a module for each, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from stages.core.lookup import load_module
from stages.schema import Column


class Models(Protocol):
    """A module of this package. Predictions are as the network's first output."""

    def constant(self, y: np.ndarray, target: Column) -> np.ndarray:
        """The best answer [1, ...] that is the same for every row."""
        ...

    def linear(self, x: Any, y: np.ndarray, target: Column) -> Iterator[Callable[[Any], list[np.ndarray]]]:
        """Linear models of x [N, C], dense or sparse, with truth y; the most regularized first."""
        ...

    def loss(self, predictions: np.ndarray, y: np.ndarray) -> float:
        """The mean loss of predictions [N, ...] for the truth [N, ...]."""
        ...

    def scores(self, x: Any, y: np.ndarray) -> np.ndarray:
        """How much each column of x [N, C] tells of y, [C]."""
        ...


def of(target: Column) -> Models:
    """The models of a target's kind."""
    return load_module(f"stages.evaluation.yardsticks.targets.{target.kind}", Models)
