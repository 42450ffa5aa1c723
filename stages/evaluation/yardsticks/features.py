"""Features of simple models, made of the arrays that the network reads. What an array is shows in its type and shape.

| array | linear model | trees |
|---|---|---|
| numbers | standardized, and whether one is missing | as they are |
| codes of a column | a column for each code | as categories |
| sequences of codes, such as words | a bag of codes and of pairs, weighted by TF-IDF | the same |
| pixels | averaged to at most 16x16, standardized | the same, as they are |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

SIDE = 16  # cells of a grid, along each of its two axes
MOST_COLUMNS = 400  # of an array, for trees: those that tell most of the target, each alone
MOST_TERMS = 20_000  # codes and pairs of a bag
CHUNK = 1000  # rows of grids at a time

Blocks = Sequence[np.ndarray]
Scores = Callable[[Any, np.ndarray], np.ndarray]  # features [N, C] and the truth -> how much each tells of it, [C]


class Part(Protocol):
    """The features of one array. `categorical`: whether its columns are categories for trees."""

    categorical: bool

    def linear(self, block: np.ndarray) -> Any:
        """[N, ...] -> columns [N, C] for a linear model, dense or sparse."""
        ...

    def trees(self, block: np.ndarray) -> Any:
        """[N, ...] -> columns [N, C] for trees, dense or sparse; NaN is missing."""
        ...

    def by_column(self, scores: np.ndarray) -> np.ndarray:
        """Scores of the linear model's columns -> those of the columns for trees."""
        ...


class Features:
    """The features of all arrays, after `fit`."""

    def __init__(self, packed: Sequence[bool]) -> None:
        self.packed = packed
        self.notes: list[str] = []

    def fit(self, blocks: Blocks, scores: Scores, y: np.ndarray) -> None:
        """Fit to training rows [N, ...] of each array with their truth."""
        self.parts = [_part(block, packed) for block, packed in zip(blocks, self.packed, strict=True)]
        self.kept, self.categories, first = list[np.ndarray](), list[int](), 0
        for part, block in zip(self.parts, blocks, strict=True):
            worth = part.by_column(scores(part.linear(block), y))
            kept = np.sort(np.argsort(-worth, kind="stable")[:MOST_COLUMNS])
            if len(kept) < len(worth):
                self.notes.append(
                    f"the trees learned from the {len(kept):,} of {len(worth):,} columns that each tell most"
                )
            self.kept.append(kept)
            self.categories += range(first, first + len(kept)) if part.categorical else ()
            first += len(kept)

    def linear(self, blocks: Blocks) -> Any:
        """Columns [N, C] for a linear model; sparse if any are."""
        from scipy import sparse

        columns = [part.linear(block) for part, block in zip(self.parts, blocks, strict=True)]
        if not any(map(sparse.issparse, columns)):
            return np.concatenate(columns, axis=1)
        return sparse.hstack([sparse.csr_matrix(each) for each in columns], "csr")

    def trees(self, blocks: Blocks) -> np.ndarray:
        """Columns [N, C] for trees; NaN is missing."""
        columns = [part.trees(block)[:, kept] for part, block, kept in zip(self.parts, blocks, self.kept, strict=True)]
        return np.concatenate([each if isinstance(each, np.ndarray) else each.toarray() for each in columns], axis=1)


def size(blocks: Blocks) -> int:
    """The numbers that a row of these arrays has, grids averaged."""
    return sum(math.prod(min(side, SIDE) if _is_grid(block) else side for side in block.shape[1:]) for block in blocks)


def _is_grid(block: np.ndarray) -> bool:
    return block.dtype == np.uint8 and block.ndim == 4


def _part(block: np.ndarray, packed: bool) -> Part:
    if _is_grid(block):
        return _Grid(block)
    if block.dtype.kind not in "iu":
        return _Numbers(block)
    return _Codes(block) if packed else _Bag(block)


class _Numbers:
    categorical = False

    def __init__(self, block: np.ndarray) -> None:
        values = self.numbers(block)
        known = ~np.isnan(values)
        self.unknown = ~known.any(0)  # of these columns nothing is learned
        count = np.maximum(known.sum(0), 1)
        self.mean = np.where(known, values, 0).sum(0) / count
        std = np.sqrt((np.where(known, values - self.mean, 0) ** 2).sum(0) / count)
        self.std = np.where(std > 0, std, 1.0)
        self.gaps = np.flatnonzero(~known.all(0))

    def numbers(self, block: np.ndarray) -> np.ndarray:
        """[N, ...] -> float64 [N, C]."""
        return np.asarray(block, np.float64).reshape(len(block), -1)

    def trees(self, block: np.ndarray) -> np.ndarray:
        return np.where(self.unknown, 0.0, self.numbers(block))

    def linear(self, block: np.ndarray) -> np.ndarray:
        values = self.numbers(block)
        missing = np.isnan(values[:, self.gaps]).astype(np.float64)
        return np.concatenate([np.nan_to_num((values - self.mean) / self.std), missing], axis=1)

    def by_column(self, scores: np.ndarray) -> np.ndarray:
        return scores[: len(self.mean)]


class _Grid(_Numbers):
    def numbers(self, block: np.ndarray) -> np.ndarray:
        parts = [_averaged(block[first : first + CHUNK]) for first in range(0, len(block), CHUNK)]
        return np.concatenate([part.reshape(len(part), -1) for part in parts])


def _averaged(block: np.ndarray) -> np.ndarray:
    """Grids [N, H, W, C] -> the means of their areas, [N, h, w, C], with at most SIDE cells along an axis."""
    cells = block.astype(np.float64)
    for axis in (1, 2):
        side = cells.shape[axis]
        edges = np.linspace(0, side, min(side, SIDE) + 1).astype(np.int64)
        lengths = np.diff(edges).reshape([-1 if at == axis else 1 for at in range(4)])
        cells = np.add.reduceat(cells, edges[:-1], axis=axis) / lengths
    return cells


class _Codes:
    categorical = True

    def __init__(self, block: np.ndarray) -> None:
        from sklearn.preprocessing import OneHotEncoder

        self.encoder = OneHotEncoder(handle_unknown="ignore", dtype=np.float64).fit(block)

    def trees(self, block: np.ndarray) -> np.ndarray:
        return np.asarray(block, np.float64)

    def linear(self, block: np.ndarray) -> Any:
        return self.encoder.transform(block)

    def by_column(self, scores: np.ndarray) -> np.ndarray:
        lengths = [len(codes) for codes in self.encoder.categories_]
        return np.maximum.reduceat(scores, np.cumsum([0, *lengths[:-1]]))


class _Bag:
    """Codes and pairs of neighbors that two training rows have or more; 0 is padding."""

    categorical = False

    def __init__(self, block: np.ndarray) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

        self.size = int(block.max()) + 1
        rows, terms = self._terms(block)
        self.known, at = np.unique(terms, return_inverse=True)
        often = np.bincount(np.unique(np.stack([at, rows]), axis=1)[0], minlength=len(self.known))
        most = np.argsort(-often, kind="stable")[: min(MOST_TERMS, int((often > 1).sum()) or MOST_TERMS)]
        self.known = self.known[np.sort(most)]
        self.weights = TfidfTransformer(sublinear_tf=True).fit(self._counts(block))

    def trees(self, block: np.ndarray) -> Any:
        return self.linear(block)

    def linear(self, block: np.ndarray) -> Any:
        return self.weights.transform(self._counts(block))

    def by_column(self, scores: np.ndarray) -> np.ndarray:
        return scores

    def _terms(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row and the number of each code and of each pair of neighbors, int64 [n] each."""
        codes = np.where(block < self.size, block, 0).astype(np.int64).reshape(len(block), -1)
        pairs = np.where((codes[:, :-1] > 0) & (codes[:, 1:] > 0), codes[:, :-1] * self.size + codes[:, 1:], 0)
        both = np.concatenate([codes, np.where(pairs, pairs + self.size, 0)], axis=1)
        rows, at = both.nonzero()
        return rows, both[rows, at]

    def _counts(self, block: np.ndarray) -> Any:
        from scipy import sparse

        rows, terms = self._terms(block)
        at = np.minimum(np.searchsorted(self.known, terms), max(len(self.known) - 1, 0))
        is_known = self.known[at] == terms if len(self.known) else np.zeros(len(terms), bool)
        entries = np.ones(int(is_known.sum())), (rows[is_known], at[is_known])
        return sparse.csr_matrix(entries, (len(block), max(len(self.known), 1)))
