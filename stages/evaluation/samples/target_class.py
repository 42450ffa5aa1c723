"""Single samples of one label out of a fixed set: mistakes, and labels in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stages.schema import Column

if TYPE_CHECKING:
    pass


def told_by(near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
    """What codes [N, K] of others, with weights [N, K], tell of each, as the head would answer: each label's share."""
    votes = np.zeros((len(near), len(target.fitted["labels"])))
    np.add.at(votes, (np.arange(len(near))[:, None], near), weights)
    return {"probabilities": (votes / votes.sum(1, keepdims=True)).astype(np.float32)}


def doubts(answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
    """How unlikely each label is by answers of which it had no part, [N]: 1 less its own probability.

    "Self-confidence" of Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    Journal of Artificial Intelligence Research 2021.
    """
    return 1 - np.asarray(answers["probabilities"], np.float64)[np.arange(len(y)), y]


def worst(answers: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The positions of wrong answers, the most confident first."""
    probabilities = np.asarray(answers["probabilities"])
    wrong = np.flatnonzero(probabilities.argmax(1) != y)
    return wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")]
