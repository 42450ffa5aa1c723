"""What encoders of numbers share: the fitted statistics of every column, and what stands for a missing value."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from stages.schema import Block

FAR = 1e30  # beyond all values, yet finite: averaged weights average buffers too, and infinities would become NaN


def per_column(block: Block, name: str) -> Tensor:
    """A fitted statistic of each column, float32 [C].

    Raises:
        ValueError: the block is none of numbers.
    """
    if any(name not in column.fitted for column in block.columns) or len(block.tensor.shape) != 1:
        raise ValueError(f"the block {block.name!r} has no fitted {name} for each column: give it another encoder")
    return torch.tensor([column.fitted[name] for column in block.columns], dtype=torch.float32)


class Standardise(nn.Module):
    """float32 [N, C] as stored -> [N, C, 2]: zero mean and unit variance with 0 for missing, and 1.0 where missing."""

    mean: Tensor
    std: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.register_buffer("mean", per_column(block, "mean"), persistent=False)
        self.register_buffer("std", per_column(block, "std"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        missing = torch.isnan(x)
        known = torch.where(missing, self.mean, x)
        return torch.stack([(known - self.mean) / self.std, missing.float()], dim=2)


class Pieces(nn.Module):
    """float32 [N, C] as stored -> [N, C, bins]: how far each value has come through each piece between two quantiles.

    The piecewise linear encoding of Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular
    deep learning" (NeurIPS 2022), equations 1 and 2. A missing value is all zeros.
    """

    low: Tensor
    width: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, block: Block, bins: int) -> None:
        super().__init__()
        lows, widths, firsts, lasts = [], [], [], []
        for column in block.columns:
            pieces = list(pairwise(_thinned(column.fitted["knots"], bins)))
            spare = bins - len(pieces)
            lows.append([low for low, _ in pieces] + [0.0] * spare)
            widths.append([high - low for low, high in pieces] + [FAR] * spare)  # which nothing comes through
            firsts.append([0.0 if i else -FAR for i in range(bins)])
            lasts.append([FAR if i == len(pieces) - 1 else 1.0 for i in range(bins)])
        for name, rows in (("low", lows), ("width", widths), ("first", firsts), ("last", lasts)):
            self.register_buffer(name, torch.tensor(rows, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        missing = torch.isnan(x)[:, :, None]
        share = (torch.nan_to_num(x)[:, :, None] - self.low) / self.width
        return torch.where(missing, 0.0, torch.minimum(torch.maximum(share, self.first), self.last))


def _thinned(knots: list[float], bins: int) -> list[float]:
    """At most bins + 1 of the knots, evenly; two at least."""
    if len(knots) == 1:
        return [knots[0] - 0.5, knots[0] + 0.5]
    if len(knots) <= bins + 1:
        return knots
    return [knots[round(i * (len(knots) - 1) / bins)] for i in range(bins + 1)]
