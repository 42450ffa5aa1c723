"""Metrics, by the target's kind: a module for each, found by its name. Training, evaluation and gate share them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from stages.schema import Column

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import MetricCollection


class Metrics(Protocol):
    """A module of this package."""

    METRICS: dict[str, tuple[float, float]]  # by name, the least and the largest value
    METRICS_BY_LABEL: dict[str, tuple[float, float]]  # the same of those that each label has, `recall[LABEL]`
    THRESHOLDS: dict[str, dict[str, float]]  # to begin with, for a person to raise
    MARGINS: dict[str, float]  # by which a model may be worse than the released one
    EXPECTED: dict[str, Any]  # of a table's target, for `validate.columns`

    def metrics(self, target: Column) -> MetricCollection:
        """What training, evaluation and gate measure; `update(predictions [N, ...], truth [N, ...])`."""
        ...

    def scalars(self, computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
        """What `metrics` computed as plain numbers."""
        ...

    def hits(self, answers: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The metrics that are shares of hits: which samples hit, and which count, bool [N] each."""
        ...

    def undefined(self, y: np.ndarray, target: Column) -> set[str]:
        """The metrics that the truth [N, ...] does not define, whatever was predicted."""
        ...


def of(target: Column) -> Metrics:
    """The metrics of a target's kind."""
    return cast(Metrics, importlib.import_module(f"stages.evaluation.metrics.{target.kind}"))
