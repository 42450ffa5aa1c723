"""Plots of predictions, by the target's kind: a module for each, found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stages.core.lookup import load_module
from stages.schema import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plots(Protocol):
    """A module of this package."""

    def plots(self, predictions: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> dict[str, Figure]:
        """Predictions {output: [N, ...]} and truth [N, ...] -> figures by name."""
        ...


def of(target: Column) -> Plots:
    """The plots of a target's kind."""
    return load_module(f"stages.evaluation.plots.{target.kind}", Plots)
