"""Plots of predictions, by the target's kind: a module for each, found by its name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

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
    return cast(Plots, importlib.import_module(f"stages.evaluation.plots.{target.kind}"))
