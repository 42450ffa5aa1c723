"""Boosted trees for a classification."""

from __future__ import annotations

import numpy as np


def predict(x: np.ndarray, y: np.ndarray, categories: list[int], new: np.ndarray) -> dict[str, np.ndarray]:
    """Fit boosted trees on x [N, C] with codes y [N]; probabilities for `new` [M, C], as the head's."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(categorical_features=categories, random_state=0).fit(x, y)
    return {"probabilities": model.predict_proba(new).astype(np.float32)}
