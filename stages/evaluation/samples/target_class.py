"""Mistakes and doubtful labels of a classification."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.schema import Column


def predict_from(near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
    """The share of each class among the codes [N, K] of the neighbors, with weights [N, K]."""
    votes = np.zeros((len(near), len(target.fitted["labels"])))
    np.add.at(votes, (np.arange(len(near))[:, None], near), weights)
    return {"probabilities": (votes / votes.sum(1, keepdims=True)).astype(np.float32)}


def doubts(predictions: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
    """How unlikely each label is, [N], by predictions that do not depend on it: 1 - its probability.

    "Self-confidence" of Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    Journal of Artificial Intelligence Research 2021.
    """
    own: np.ndarray = np.asarray(predictions["probabilities"], np.float64)[np.arange(len(y)), y]
    return 1 - own


def worst(predictions: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The positions of wrong predictions, the most confident first."""
    probabilities = np.asarray(predictions["probabilities"])
    wrong = np.flatnonzero(probabilities.argmax(1) != y)
    return wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")]
