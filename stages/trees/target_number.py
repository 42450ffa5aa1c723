"""Boosted trees for a regression."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stages.schema import Column
from stages.trees import grid


def models(
    x: np.ndarray, y: np.ndarray, categories: list[int], target: Column
) -> Iterator[Callable[[np.ndarray], Iterator[np.ndarray]]]:
    """Boosted trees for x [N, C] with values y [N, 1], to values [M, 1] after each step."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    for settings in grid(x, 1):
        model = HistGradientBoostingRegressor(**settings.arguments(x, categories)).fit(x, y[:, 0])

        def staged(new: np.ndarray, model: HistGradientBoostingRegressor = model) -> Iterator[np.ndarray]:
            return (step.astype(np.float32)[:, None] for step in model.staged_predict(new))

        yield staged
