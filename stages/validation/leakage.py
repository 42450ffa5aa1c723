"""How well a single column predicts the target. A nearly perfect column is often the target in another form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ROWS = 20_000  # rows in the random sample
FEWEST = 100  # with fewer rows the scores would be mostly chance


def scores(rows: pd.DataFrame, target: str) -> dict[str, float]:
    """Column of values or facts -> the share of the target's error that it removes by itself, 0 to 1.

    A decision tree on that column is fitted to one half of the samples and tested on the other. Its error is divided by
    that of a constant prediction, the most frequent class or the mean. The error is the share of wrong classes, or the
    mean squared error of numbers, for which the score is R². Copies of a sample, equal in `_id`, are in the same half.

    Returns:
        {} if there are too few rows, only copies of one sample, or a constant target.
    """
    import numpy as np
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    ids = pd.factorize(rows["_id"])[0]
    place = np.random.default_rng(0).permutation(ids.max(initial=-1) + 1)
    usable = np.flatnonzero((ids >= 0) & rows[target].notna().to_numpy())
    sample = usable[place[ids[usable]] < ROWS][:ROWS]
    first = place[ids[sample]] % 2 == 0
    if len(sample) < FEWEST or first.all() or not first.any():
        return {}
    regression = is_numeric_dtype(rows[target])
    chosen = rows[target].iloc[sample]
    truth = chosen.to_numpy(np.float64) if regression else pd.factorize(chosen)[0]
    constant = truth[first].mean() if regression else np.bincount(truth[first]).argmax()
    baseline = _error(truth[~first], np.full((~first).sum(), constant), regression)
    if not baseline > 0:
        return {}
    scores = {}
    for name in rows:
        if not name.startswith("_") and name != target:
            values = rows[name].iloc[sample]
            numbers = values.to_numpy(np.float64) if is_numeric_dtype(values) else pd.factorize(values, sort=True)[0]
            predictions = _tree(regression).fit(numbers[first, None], truth[first]).predict(numbers[~first, None])
            scores[name] = round(max(0.0, 1 - _error(truth[~first], predictions, regression) / baseline), 4)
    return scores


def _tree(regression: bool) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return (DecisionTreeRegressor if regression else DecisionTreeClassifier)(min_samples_leaf=5, random_state=0)


def _error(truth: Any, predictions: Any, regression: bool) -> float:
    return float(((truth - predictions) ** 2).mean() if regression else (truth != predictions).mean())
