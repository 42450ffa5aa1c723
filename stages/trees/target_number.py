"""Boosted trees for one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass


def predict(x: np.ndarray, y: np.ndarray, categories: list[int], new: np.ndarray) -> dict[str, np.ndarray]:
    """The value that boosted trees which learnt from [N, C] with amounts y [N, 1] answer to `new` [M, C]."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(categorical_features=categories, random_state=0).fit(x, y[:, 0])
    return {"value": model.predict(new)[:, None].astype(np.float32)}
