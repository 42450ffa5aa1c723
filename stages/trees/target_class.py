"""Boosted trees for a classification."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stages.schema import Column
from stages.trees import grid


def models(
    x: np.ndarray, y: np.ndarray, categories: list[int], target: Column
) -> Iterator[Callable[[np.ndarray], Iterator[np.ndarray]]]:
    """Boosted trees for x [N, C] with codes y [N], to probabilities [M, classes] after each step."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    present, classes = np.unique(y), len(target.fitted["labels"])
    for settings in grid(x, len(present) if len(present) > 2 else 1):
        model = HistGradientBoostingClassifier(**settings.arguments(x, categories)).fit(x, y)

        def staged(new: np.ndarray, model: HistGradientBoostingClassifier = model) -> Iterator[np.ndarray]:
            for step in model.staged_predict_proba(new):
                probabilities = np.zeros((len(new), classes), np.float32)
                probabilities[:, present] = step[:, -len(present) :]  # for a single class, sklearn answers with two
                yield probabilities

        yield staged
