"""Single samples of one number: mistakes, and values in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stages.schema import Column

if TYPE_CHECKING:
    pass


def told_by(near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
    """What amounts [N, K, 1] of others, with weights [N, K], tell of each, as the head would answer: mean and range."""
    amounts = near[:, :, 0]
    value = (amounts * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    interval = np.stack([amounts.min(1), amounts.max(1)], axis=1)
    return {"value": value.astype(np.float32), "interval": interval.astype(np.float32)}


def doubts(answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
    """How far each amount is from answers of which it had no part, [N], in standard deviations of the target."""
    return np.abs(np.asarray(answers["value"], np.float64) - y)[:, 0] / float(target.fitted["std"])


def worst(answers: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The positions of all answers, the largest error first."""
    return np.argsort(-np.abs(answers["value"] - y)[:, 0], kind="stable")
