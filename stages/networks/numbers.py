"""Modules shared by encoders of numbers: fitted statistics of each column, and fill values for missing ones."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stages.schema import Block

FAR = 1e30  # beyond all values but finite: weight averaging includes buffers, and infinities would become NaN


def per_column(block: Block, name: str) -> Tensor:
    """A fitted statistic, float32 [C]: one value for each number that a column is stored as.

    Raises:
        ValueError: the block holds no numbers.
    """
    return torch.cat([torch.tensor(value, dtype=torch.float32).reshape(-1) for value in _fitted(block, name)])


class Standardize(nn.Module):
    """float32 [N, C] as stored -> [N, C, 2]: the standardized value, and 1.0 where missing.

    Standardized means zero mean and unit variance in training; or, for a column with fitted scores, the normal deviate
    of the value's quantile. A missing value is replaced by the column's `fill`, or by its mean.
    """

    mean: Tensor
    std: Tensor
    fill: Tensor
    scored: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.register_buffer("mean", per_column(block, "mean"), persistent=False)
        self.register_buffer("std", per_column(block, "std"), persistent=False)
        fills = (column.fitted.get("fill", column.fitted["mean"]) for column in block.columns)
        self.register_buffer(
            "fill", torch.cat([torch.tensor(fill, dtype=torch.float32).reshape(-1) for fill in fills]), persistent=False
        )
        scored = [float("scores" in column.fitted) for column in block.columns]
        self.register_buffer("scored", torch.tensor(scored), persistent=False)
        self.deviates = Deviates(block) if any(scored) else None

    def forward(self, x: Tensor) -> Tensor:
        missing = torch.isnan(x)
        filled = torch.where(missing, self.fill, x)
        scaled = (filled - self.mean) / self.std
        if self.deviates is not None:
            scaled = torch.where(self.scored > 0, self.deviates(filled), scaled)
        return torch.stack([scaled, missing.float()], dim=2)


class Deviates(nn.Module):
    """float32 [N, C] without NaN -> [N, C]: the normal deviate of each value's quantile, linear between the knots.

    Constant beyond the first and the last knot. 0 for a column without scores.
    """

    start: Tensor
    low: Tensor
    width: Tensor
    rise: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        curves = [
            (column.fitted["knots"], column.fitted["scores"]) if "scores" in column.fitted else ([0], [0])
            for column in block.columns
        ]
        most = max(len(knots) for knots, _ in curves)
        low, rise = torch.zeros(2, len(curves), most)
        width = torch.full_like(low, FAR)  # unused pieces are so wide that they add nothing
        for i, (knots, scores) in enumerate(curves):
            pieces = len(knots) - 1
            low[i, :pieces] = torch.tensor(knots[:-1])
            width[i, :pieces] = torch.tensor(knots).diff()
            rise[i, :pieces] = torch.tensor(scores).diff()
        start = torch.tensor([scores[0] for _, scores in curves], dtype=torch.float32)
        for name, rows in (("start", start), ("low", low), ("width", width), ("rise", rise)):
            self.register_buffer(name, rows, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        share = ((x[:, :, None] - self.low) / self.width).clamp(0, 1)
        return self.start + (share * self.rise).sum(dim=2)


class Pieces(nn.Module):
    """float32 [N, C] as stored -> [N, C, bins]: which share of each piece between two quantiles lies below the value.

    The piecewise linear encoding of Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular
    deep learning" (NeurIPS 2022), equations 1 and 2. A missing value becomes the column's `fill`, or zeros.
    """

    fill: Tensor
    low: Tensor
    width: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, block: Block, bins: int) -> None:
        super().__init__()
        lows, widths, firsts, lasts = [], [], [], []
        for knots in _fitted(block, "knots"):
            pieces = list(pairwise(_thin(knots, bins)))
            spare = bins - len(pieces)
            lows.append([low for low, _ in pieces] + [0.0] * spare)
            widths.append([high - low for low, high in pieces] + [FAR] * spare)  # unused pieces add nothing
            firsts.append([0.0 if i else -FAR for i in range(bins)])
            lasts.append([FAR if i == len(pieces) - 1 else 1.0 for i in range(bins)])
        for name, rows in (("low", lows), ("width", widths), ("first", firsts), ("last", lasts)):
            self.register_buffer(name, torch.tensor(rows, dtype=torch.float32), persistent=False)
        self.register_buffer("fill", _fill(block), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.where(torch.isnan(x), self.fill, x)
        missing = torch.isnan(x)[:, :, None]
        share = (torch.nan_to_num(x)[:, :, None] - self.low) / self.width
        return torch.where(missing, 0.0, torch.minimum(torch.maximum(share, self.first), self.last))


def _fitted(block: Block, name: str) -> list[Any]:
    if any(name not in column.fitted for column in block.columns) or len(block.tensor.shape) != 1:
        raise ValueError(f"the block {block.name!r} has no fitted {name} for each column: give it another encoder")
    return [column.fitted[name] for column in block.columns]


def _fill(block: Block) -> Tensor:
    """The fill value of each column, float32 [C]; NaN if it has none."""
    return torch.tensor([column.fitted.get("fill", math.nan) for column in block.columns], dtype=torch.float32)


def _thin(knots: list[float], bins: int) -> list[float]:
    """At most bins + 1 of the knots, evenly spread, and at least two."""
    if len(knots) == 1:
        return [knots[0] - 0.5, knots[0] + 0.5]
    if len(knots) <= bins + 1:
        return knots
    return [knots[round(i * (len(knots) - 1) / bins)] for i in range(bins + 1)]
