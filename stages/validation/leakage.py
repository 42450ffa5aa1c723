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
    there = np.flatnonzero((ids >= 0) & rows[target].notna().to_numpy())
    drawn = there[place[ids[there]] < ROWS][:ROWS]
    first = place[ids[drawn]] % 2 == 0
    if len(drawn) < FEWEST or first.all() or not first.any():
        return {}
    amounts = is_numeric_dtype(rows[target])
    chosen = rows[target].iloc[drawn]
    truth = chosen.to_numpy(np.float64) if amounts else pd.factorize(chosen)[0]
    constant = truth[first].mean() if amounts else np.bincount(truth[first]).argmax()
    by_itself = _error(truth[~first], np.full((~first).sum(), constant), amounts)
    if not by_itself > 0:
        return {}
    found = {}
    for name in rows:
        if not name.startswith("_") and name != target:
            values = rows[name].iloc[drawn]
            numbers = values.to_numpy(np.float64) if is_numeric_dtype(values) else pd.factorize(values, sort=True)[0]
            told = _tree(amounts).fit(numbers[first, None], truth[first]).predict(numbers[~first, None])
            found[name] = round(max(0.0, 1 - _error(truth[~first], told, amounts) / by_itself), 4)
    return found


def _tree(amounts: bool) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return (DecisionTreeRegressor if amounts else DecisionTreeClassifier)(min_samples_leaf=5, random_state=0)


def _error(truth: Any, told: Any, amounts: bool) -> float:
    return float(((truth - told) ** 2).mean() if amounts else (truth != told).mean())
