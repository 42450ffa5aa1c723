"""Single samples, by the target's kind: a module for each, found by its name. Mistakes, and labels in doubt."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np

from stages.schema import Column


class Samples(Protocol):
    """A module of this package."""

    def told_by(self, near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
        """What the truth of K others [N, K, ...], with weights [N, K], predicts for each, as the head would."""
        ...

    def doubts(self, answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
        """How unlikely each truth is by predictions in which it had no part, [N]."""
        ...

    def worst(self, answers: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
        """The positions of the mistakes, the worst first."""
        ...


def of(target: Column) -> Samples:
    """What is known of single samples of a target's kind."""
    return cast(Samples, importlib.import_module(f"stages.evaluation.samples.{target.kind}"))
