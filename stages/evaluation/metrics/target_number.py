"""Metrics of one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from stages.schema import Column

if TYPE_CHECKING:
    pass

METRICS = {"rmse": (0.0, np.inf), "mae": (0.0, np.inf), "r2": (-np.inf, 1.0)}  # least and largest values
METRICS_BY_LABEL: dict[str, tuple[float, float]] = {}
THRESHOLDS = {"r2": {"min": 0.0}}  # to begin with, for a person to raise
MARGINS = {"r2": 0.02}  # by which a model may be worse than the released one
EXPECTED: dict[str, Any] = {}  # of a table's target
ALIKE = 1e-4  # squared standard deviations in all, which torchmetrics takes for none


class _R2(R2Score):
    """Of amounts less their mean in training, in standard deviations: it depends on neither, but torchmetrics does.

    The digits of large amounts would cancel out, and squares that add up to less than 1e-4 count as 0. It is NaN where
    all amounts are alike.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.set_dtype(torch.float64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        preds, target = ((amounts.double() - self.mean) / self.std for amounts in (preds, target))
        super().update(preds, target)

    def compute(self) -> Tensor:
        spread = self.sum_squared_error - self.sum_error**2 / self.total
        return super().compute() if self.total > 1 and spread > ALIKE else torch.tensor(torch.nan)


def metrics(target: Column) -> MetricCollection:
    """What training, evaluation and gate measure; `update(values [N, 1], y [N, 1])`."""
    r2 = _R2(target.fitted["mean"], target.fitted["std"])
    return MetricCollection(
        {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "r2": r2}, compute_groups=False
    )


def scalars(computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
    """What `metrics` computed as plain numbers."""
    return {name: float(value) for name, value in computed.items()}


def hits(answers: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics that are shares of hits: none."""
    return {}


def undefined(y: np.ndarray, target: Column) -> set[str]:
    """The metrics that amounts [N, 1] do not define, whatever was answered: r2 of those that are all alike."""
    scaled = (np.asarray(y, np.float64) - target.fitted["mean"]) / target.fitted["std"]
    return set() if len(y) > 1 and scaled.var() * len(y) > ALIKE else {"r2"}
