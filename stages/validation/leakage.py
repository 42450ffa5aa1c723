"""How much of the target a single column tells: nearly all of it is seldom honest, and often the target in disguise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ROWS = 20_000  # that are looked at, drawn by chance
FEWEST = 100  # under which chance alone would tell


def scores(rows: pd.DataFrame, target: str) -> dict[str, float]:
    """For each column of values or facts the share of the error that it takes away by itself, 0 to 1.

    A decision tree of that column learns from one half of the samples and is held against the other. Its error is
    divided by that of the likeliest label or of the mean: for labels that is the share of wrong ones, for numbers the
    squared distance, so that the score is R². {} for too few rows, for copies of one sample, and for a target that is
    the same in all of them.
    `rows` has `_id`; copies of a sample are all in one half.
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
