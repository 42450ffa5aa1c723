"""Metrics of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from stages.schema import Column

METRICS = {"rmse": (0.0, np.inf), "mae": (0.0, np.inf), "r2": (-np.inf, 1.0)}  # smallest and largest value
METRICS_BY_LABEL: dict[str, tuple[float, float]] = {}
MARGINS = {"r2": 0.02}  # by which a model may be worse than the released one
EXPECTED: dict[str, Any] = {}  # of a table's target
CONSTANT = 1e-4  # torchmetrics treats a smaller sum of squares, in standard deviations, as 0


class _R2(R2Score):
    """R2 of standardized values. R2 does not depend on mean and scale, but torchmetrics' result does.

    The digits of large values would cancel out, and torchmetrics treats a sum of squares below 1e-4 as 0. R2 is NaN if
    all values are equal.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.set_dtype(torch.float64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        preds, target = ((values.double() - self.mean) / self.std for values in (preds, target))
        super().update(preds, target)

    def compute(self) -> Tensor:
        spread = self.sum_squared_error - self.sum_error**2 / self.total
        return super().compute() if self.total > 1 and spread > CONSTANT else torch.tensor(torch.nan)


def metrics(target: Column) -> MetricCollection:
    """The metrics of training, evaluation and gate; `update(values [N, 1], y [N, 1])`."""
    r2 = _R2(target.fitted["mean"], target.fitted["std"])
    return MetricCollection(
        {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "r2": r2}, compute_groups=False
    )


def scalars(computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
    """The computed metrics as plain numbers."""
    return {name: float(value) for name, value in computed.items()}


def hits(predictions: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics that are shares of hits: a regression has none."""
    return {}


def headline(target: Column) -> str:
    """The share of the variance that is explained."""
    return "r2"


def undefined(y: np.ndarray, target: Column) -> set[str]:
    """The metrics that values [N, 1] do not define, whatever is predicted: r2 if all values are equal."""
    scaled = (np.asarray(y, np.float64) - target.fitted["mean"]) / target.fitted["std"]
    return set() if len(y) > 1 and scaled.var() * len(y) > CONSTANT else {"r2"}
