"""The constant answer and logistic regression for a classification."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from stages.schema import Column

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # inverse of the regularization
WORK, FEWEST, MOST = 3e9, 15, 200  # multiplications in all, and steps of each model
LEAST = 1e-6  # no class is impossible


def constant(y: np.ndarray, target: Column) -> np.ndarray:
    """The share of each class among codes [N], float32 [1, C]."""
    counts = np.bincount(y, minlength=len(target.fitted["labels"]))
    shares: np.ndarray = (counts / counts.sum()).astype(np.float32)[None]
    return shares


def linear(x: Any, y: np.ndarray, target: Column) -> Iterator[Callable[[Any], list[np.ndarray]]]:
    """Logistic regressions of codes [N]; each starts from the weights of the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present, classes = np.unique(y), len(target.fitted["labels"])
    if len(present) < 2:
        yield lambda new: [np.repeat(constant(y, target), new.shape[0], axis=0)]
        return
    values = (x.nnz if hasattr(x, "nnz") else x.size) * (1 if len(present) == 2 else len(present))
    steps = int(np.clip(WORK / len(STRENGTHS) / max(values, 1), FEWEST, MOST))
    model = LogisticRegression(warm_start=True, max_iter=steps)
    for strength in STRENGTHS if steps > FEWEST else STRENGTHS[len(STRENGTHS) // 2 :]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(x, y)
        yield partial(_predict, model.coef_.copy(), model.intercept_.copy(), present, classes)


def loss(predictions: np.ndarray, y: np.ndarray) -> float:
    """The mean log loss of probabilities [N, C] for codes [N]."""
    own = predictions[np.arange(len(y)), y].astype(np.float64)
    return float(-np.log(np.maximum(own, LEAST)).mean())


def scores(x: Any, y: np.ndarray) -> np.ndarray:
    """The F statistic of each column [C]."""
    from sklearn.feature_selection import f_classif

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of constant columns
        found: np.ndarray = f_classif(x, y)[0] if len(np.unique(y)) > 1 else np.zeros(x.shape[1])
    return np.where(np.isnan(found), -1.0, found)


def _predict(weights: np.ndarray, offset: np.ndarray, present: np.ndarray, classes: int, new: Any) -> list[np.ndarray]:
    return [_softmax(new @ weights.T + offset, present, classes)]


def _softmax(logits: np.ndarray, present: np.ndarray, classes: int) -> np.ndarray:
    """Logits [N, K] of the classes that are present, or [N, 1] of the second of two -> probabilities [N, C]."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = np.zeros((len(logits), classes), np.float32)
    probabilities[:, present] = odds / odds.sum(1, keepdims=True)
    return probabilities
