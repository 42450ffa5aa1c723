"""The constant answer and ridge regression for a number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.schema import Column

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge

STRENGTHS = (1e4, 1e3, 1e2, 10.0, 1.0, 0.1, 0.01, 0.001)  # of the regularization
EXACT = 1000  # rows or columns; with more of both, and where they are sparse, by conjugate gradients
STEPS = 100


def constant(y: np.ndarray, target: Column) -> np.ndarray:
    """The mean of values [N, 1], float32 [1, 1]."""
    mean: np.ndarray = y.mean(0, dtype=np.float64, keepdims=True)
    return mean.astype(np.float32)


def linear(x: Any, y: np.ndarray, target: Column) -> Iterator[Callable[[Any], list[np.ndarray]]]:
    """Ridge regressions of values [N, 1]."""
    from sklearn.linear_model import Ridge

    mean, std = target.fitted["mean"], target.fitted["std"]
    scaled = (y[:, 0].astype(np.float64) - mean) / std
    exact = isinstance(x, np.ndarray) and min(x.shape) <= EXACT
    for strength in STRENGTHS:
        model = Ridge(strength, solver="cholesky" if exact else "sparse_cg", max_iter=None if exact else STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nearly equal columns, and of steps that did not suffice
            model.fit(x, scaled)
        yield partial(_predict, model, mean, std)


def loss(predictions: np.ndarray, y: np.ndarray) -> float:
    """The mean squared error of values [N, 1]."""
    return float(((predictions.astype(np.float64) - y) ** 2).mean())


def scores(x: Any, y: np.ndarray) -> np.ndarray:
    """The F statistic of each column [C]."""
    from sklearn.feature_selection import f_regression

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of constant columns
        found: np.ndarray = f_regression(x, y[:, 0].astype(np.float64))[0]
    return np.where(np.isnan(found), -1.0, found)


def _predict(model: Ridge, mean: float, std: float, new: Any) -> list[np.ndarray]:
    return [(model.predict(new) * std + mean).astype(np.float32)[:, None]]
