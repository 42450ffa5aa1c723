"""Mistakes and doubtful labels among samples, by the target's kind: a module for each, found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from stages.core.lookup import load_module
from stages.schema import Column


class Samples(Protocol):
    """A module of this package."""

    def predict_from(self, near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
        """Predict N samples from their K neighbors' truth [N, K, ...] with weights [N, K]; outputs as a head's."""
        ...

    def doubts(self, predictions: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
        """How unlikely each truth is, [N], by predictions that do not depend on it."""
        ...

    def worst(self, predictions: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
        """The positions of the mistakes, the worst first."""
        ...


def of(target: Column) -> Samples:
    """The functions for a target's kind."""
    return load_module(f"stages.evaluation.samples.{target.kind}", Samples)
