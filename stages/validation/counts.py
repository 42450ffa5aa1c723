"""Counts over the whole table, for each row."""

from __future__ import annotations

import numpy as np


def sizes(codes: np.ndarray) -> np.ndarray:
    """The number of rows with the same code, [N] -> [N]; 0 for -1, which is missing."""
    counts: np.ndarray = np.append(np.bincount(codes[codes >= 0], minlength=codes.max(initial=-1) + 1), 0)
    return np.take(counts, codes)


def distinct(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The number of distinct values in each row's group, [N]; missing values do not count."""
    import pandas as pd

    there = (groups >= 0) & (values >= 0)
    width = max(1, values.max(initial=-1) + 1)
    pairs = pd.unique(groups[there] * width + values[there])
    counts: np.ndarray = np.append(np.bincount(pairs // width, minlength=groups.max(initial=-1) + 1), 0)
    return np.take(counts, groups)
