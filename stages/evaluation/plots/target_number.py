"""Plots of a regression: predictions and residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.schema import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots(predictions: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> dict[str, Figure]:
    """Predictions {"value": [N, 1]} and values [N, 1] -> `answers` and `residuals`."""
    from matplotlib.figure import Figure

    def figure(draw: Any) -> Figure:
        drawn = Figure(figsize=(6.4, 5.6), dpi=100, layout="constrained")
        draw(drawn.subplots(), predictions["value"][:, 0], np.asarray(y)[:, 0])
        return drawn

    return {"answers": figure(_draw_predictions), "residuals": figure(_draw_residuals)}


def _draw_predictions(axes: Any, predicted: np.ndarray, truth: np.ndarray) -> None:
    ends = [min(predicted.min(), truth.min()), max(predicted.max(), truth.max())]
    axes.scatter(truth, predicted, s=6, alpha=0.4, color="tab:blue", edgecolors="none")
    axes.plot(ends, ends, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="true", ylabel="predicted", title="Predictions")


def _draw_residuals(axes: Any, predicted: np.ndarray, truth: np.ndarray) -> None:
    axes.hist(predicted - truth, bins=50, color="tab:blue")
    axes.axvline(0, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="predicted - true", ylabel="samples", title="Residuals")
