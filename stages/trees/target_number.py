"""Boosted trees for a regression."""

from __future__ import annotations

import numpy as np


def predict(x: np.ndarray, y: np.ndarray, categories: list[int], new: np.ndarray) -> dict[str, np.ndarray]:
    """Fit boosted trees on x [N, C] with values y [N, 1]; values for `new` [M, C], as the head's."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(categorical_features=categories, random_state=0).fit(x, y[:, 0])
    return {"value": model.predict(new)[:, None].astype(np.float32)}
