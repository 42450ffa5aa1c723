"""Signs that a column was written after the target was known: it is blank for one answer, or counts sorted rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stages.validation import leakage

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 10  # rows that are blank
SORTED = 0.5  # share of the target's error that the order of the rows removes, from which a counting column is named


class Blank(NamedTuple):
    """A column that is missing where the target is `value`: `share` of the rows that are either are both."""

    column: str
    value: str
    share: float


def blanks(rows: pd.DataFrame, target: str) -> list[Blank]:
    """For each column with missing values, the target's value for which it is missing most exclusively."""
    from pandas.api.types import is_numeric_dtype

    found = []
    sizes = rows[target].value_counts()
    for name in rows:
        if name.startswith("_") or name == target or "." in name:
            continue
        missing = rows[name].isna()
        if not FEWEST <= missing.sum() < len(rows):
            continue
        inside = rows.loc[missing, target].value_counts()
        if len(inside):
            both = int(inside.iloc[0])
            share = both / (int(missing.sum()) + int(sizes[inside.index[0]]) - both)
            value = f"{inside.index[0]:g}" if is_numeric_dtype(rows[target]) else str(inside.index[0])
            found.append(Blank(name, value, round(share, 4)))
    return found


def order(rows: pd.DataFrame, target: str) -> float:
    """The share of the target's error that the place of a row removes by itself; 0 if it cannot be told."""
    import numpy as np

    placed = rows[["_id", target]].assign(place=np.arange(len(rows), dtype=np.float64))
    return leakage.scores(placed, target).get("place", 0.0)


def counters(rows: pd.DataFrame) -> list[str]:
    """The columns of distinct numbers that rise or fall with the rows, as ids do."""
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    def counts(values: Any) -> bool:
        known = values[~np.isnan(values)]
        steps = np.diff(known)
        return len(known) > len(values) / 2 and bool((steps > 0).all() or (steps < 0).all())

    columns = [name for name in rows if not name.startswith("_") and is_numeric_dtype(rows[name])]
    return [name for name in columns if "." not in name and counts(rows[name].to_numpy(np.float64))]
