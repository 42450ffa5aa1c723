"""Metrics, by the target's kind: a module for each, found by its name. Training, evaluation and gate share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stages.core.lookup import load_module
from stages.schema import Column

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import MetricCollection


class Metrics(Protocol):
    """A module of this package."""

    METRICS: dict[str, tuple[float, float]]  # by name, the smallest and the largest value
    METRICS_BY_LABEL: dict[str, tuple[float, float]]  # the same for the metrics of each class, `recall[LABEL]`
    MARGINS: dict[str, float]  # for new data: by which a model may be worse than the released one
    EXPECTED: dict[str, Any]  # of a table's target, for `validate.columns`

    def metrics(self, target: Column) -> MetricCollection:
        """The metrics of training, evaluation and gate; `update(predictions [N, ...], truth [N, ...])`."""
        ...

    def scalars(self, computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
        """The computed metrics as plain numbers."""
        ...

    def hits(self, predictions: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The metrics that are shares of hits: by name, which samples hit and which count, bool [N] each."""
        ...

    def headline(self, target: Column) -> str:
        """The metric by which models are compared with simple ones."""
        ...

    def undefined(self, y: np.ndarray, target: Column) -> set[str]:
        """The metrics that the truth [N, ...] does not define, whatever is predicted."""
        ...


def of(target: Column) -> Metrics:
    """The metrics of a target's kind."""
    return load_module(f"stages.evaluation.metrics.{target.kind}", Metrics)
