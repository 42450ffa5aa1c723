"""Plots of a classification: confusion and reliability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.evaluation.metrics.target_class import BINS
from stages.schema import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots(predictions: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> dict[str, Figure]:
    """Predictions {"probabilities": [N, C]} and codes [N] -> `confusion` and `reliability`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def figure(draw: Any, *arguments: Any) -> Figure:
        drawn = Figure(figsize=(6.4, 5.6), dpi=100, layout="constrained")
        FigureCanvasAgg(drawn)  # no pyplot: no global state, no window
        draw(drawn.subplots(), *arguments)
        return drawn

    probabilities, y = np.asarray(predictions["probabilities"]), np.asarray(y)
    return {
        "confusion": figure(_draw_confusion, probabilities, y, target.fitted["labels"]),
        "reliability": figure(_draw_reliability, probabilities, y),
    }


def _draw_confusion(axes: Any, probabilities: np.ndarray, y: np.ndarray, labels: list[str]) -> None:
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (y, probabilities.argmax(1)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion")
    ticks = np.arange(len(labels))
    axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(ticks, labels)
    if len(labels) <= 20:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)


def _draw_reliability(axes: Any, probabilities: np.ndarray, y: np.ndarray) -> None:
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    accuracy = np.bincount(bins, right, BINS) / np.maximum(count, 1)
    axes.bar(edges[:-1], accuracy, width=1 / BINS, align="edge", color="tab:blue", edgecolor="white")
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="probability of the prediction", ylabel="share of right predictions", title="Reliability")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for edge, height, samples in zip(edges, accuracy, count, strict=False):
        if samples:
            axes.text(edge + 0.5 / BINS, min(height + 0.01, 0.97), samples, ha="center", fontsize=6)
