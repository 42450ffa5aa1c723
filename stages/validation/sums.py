"""Sums and differences of two or three columns that are the target: fare + tip + tolls, casual + registered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ROWS = 2_000  # for the search; what it finds is checked on all rows
COLUMNS = 2_000  # of more, those most correlated with the target are searched
PAIRS = 100  # that are completed to triples
SCREENED = 0.5  # share that a candidate explains where blanks were filled with means
EXACT = 0.999  # share of the variance that a sum must explain
ALIKE = 0.02  # how much the coefficients of a sum may differ from one another


class Sum(NamedTuple):
    """A sum such as `casual + registered`, and the share of the target's variance that it explains."""

    text: str
    score: float


def find(rows: pd.DataFrame, target: str) -> list[Sum]:
    """The sums and differences of two columns of numbers, else of three, that are the target, in any unit.

    Pairs are compared all at once by their correlations: for standardized columns a and b the explained share is
    (ra² + rb² - 2 ra rb rab) / (1 - rab²). The best pairs are completed to triples by the column most correlated with
    what they leave, as in orthogonal matching pursuit. Costs grow with the square of the number of columns.
    """
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    names = [
        name
        for name in rows
        if not name.startswith("_")
        and name != target
        and is_numeric_dtype(rows[name])
        and not is_bool_dtype(rows[name])
    ]
    if not is_numeric_dtype(rows[target]) or len(names) < 2:
        return []
    table = rows.loc[rows[target].notna(), [*names, target]]
    if len(table) < 10:
        return []
    few = table.sample(min(ROWS, len(table)), random_state=0)
    known = few[names].to_numpy(np.float64)
    blank = np.isnan(known)
    means = np.where(blank, 0.0, known).sum(0) / np.maximum(1, (~blank).sum(0))
    x = _standardized(np.where(blank, means, known))
    y = _standardized(few[[target]].to_numpy(np.float64))[:, 0]
    least = SCREENED if blank.any() else EXACT
    strongest = np.argsort(-np.abs(x.T @ y), kind="stable")[:COLUMNS]
    x, names = x[:, strongest], [names[place] for place in strongest]
    positions = {name: place for place, name in enumerate(table)}
    found: list[Sum] = []
    used: set[str] = set()
    for candidate in _candidates(x, y, least):
        chosen = sorted((names[place] for place in candidate), key=positions.__getitem__)
        if used.isdisjoint(chosen) and _exact(few, chosen, target) and (exact := _exact(table, chosen, target)):
            found.append(exact)
            used.update(chosen)
    return found


def _candidates(x: np.ndarray, y: np.ndarray, least: float) -> list[tuple[int, ...]]:
    """Positions of two or three columns that explain at least this share of `y`, pairs first."""
    import numpy as np

    to_target, among = x.T @ y, x.T @ x
    rest = 1 - among**2
    pairs = to_target[:, None] ** 2 + to_target**2 - 2 * to_target[:, None] * to_target * among
    explained = np.where(rest > 1e-6, pairs / np.maximum(rest, 1e-6), 0.0)
    explained[np.tril_indices(len(explained))] = 0.0
    most = min(PAIRS, explained.size)
    places = np.argpartition(-explained, most - 1, axis=None)[:most]
    order = places[np.lexsort((places, -explained.flat[places]))]
    best = [(int(place) // len(explained), int(place) % len(explained)) for place in order if explained.flat[place] > 0]
    candidates: list[tuple[int, ...]] = [pair for pair in best if explained[pair] >= least]
    for pair in best if x.shape[1] > 2 else ():
        base, _ = np.linalg.qr(x[:, pair])
        left = x - base @ (base.T @ x)
        sizes = np.sqrt((left**2).sum(0))
        gained = np.where(sizes > 1e-3, (left.T @ (y - base @ (base.T @ y))) / np.maximum(sizes, 1e-3), 0.0) ** 2
        third = int(gained.argmax())
        if explained[pair] + gained[third] >= least:
            candidates.append(tuple(sorted((*pair, third))))
    return list(dict.fromkeys(candidates))


def _exact(table: pd.DataFrame, names: Sequence[str], target: str) -> Sum | None:
    """The sum of these columns, if their coefficients differ only in sign and no fewer of them explain the target."""
    import numpy as np

    values = table[[*names, target]].dropna().to_numpy(np.float64)
    x, y = values[:, :-1], values[:, -1]
    if len(y) < 10 or not y.std() > 0:
        return None
    coefficients, score = _fitted(x, y)
    sizes = np.abs(coefficients)
    if score < EXACT or not sizes.min() > 0 or sizes.max() > (1 + ALIKE) * sizes.min():
        return None
    fewer = combinations(range(len(names)), len(names) - 1)
    if any(_fitted(x[:, list(part)], y)[1] >= min(EXACT, score - 1e-9) for part in fewer):
        return None
    positive = coefficients > 0
    ordered = sorted(zip(~positive, names, strict=True), key=lambda signed: bool(signed[0]))
    text = "".join(f" {'-' if minus else '+'} {name}" for minus, name in ordered).removeprefix(" + ")
    return Sum(text.strip(), round(float(score), 4))


def _fitted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with an intercept: the coefficients, and the explained share of the variance."""
    import numpy as np

    centered, about = x - x.mean(0), y - y.mean()
    coefficients = np.linalg.lstsq(centered, about, rcond=None)[0]
    return coefficients, 1 - float(((about - centered @ coefficients) ** 2).sum() / (about**2).sum())


def _standardized(columns: np.ndarray) -> np.ndarray:
    """Columns [N, C] with mean 0 and length 1; a constant column is 0."""
    import numpy as np

    centered = columns - columns.mean(0)
    lengths = np.sqrt((centered**2).sum(0))
    return np.asarray(centered / np.where(lengths > 0, lengths, 1.0))
