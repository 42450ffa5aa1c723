"""Mistakes and doubtful values of a regression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.schema import Column


def predict_from(near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
    """The weighted mean and the range of the neighbors' values [N, K, 1], with weights [N, K]."""
    values = near[:, :, 0]
    value = (values * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    interval = np.stack([values.min(1), values.max(1)], axis=1)
    return {"value": value.astype(np.float32), "interval": interval.astype(np.float32)}


def doubts(predictions: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
    """How far each value is from a prediction that does not depend on it, [N], in standard deviations of the target."""
    errors: np.ndarray = np.abs(np.asarray(predictions["value"], np.float64) - y)[:, 0]
    return errors / float(target.fitted["std"])


def worst(predictions: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The positions of all predictions, the largest error first."""
    return np.argsort(-np.abs(predictions["value"] - y)[:, 0], kind="stable")
