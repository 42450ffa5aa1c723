"""An encoder of numbers, by their position among the quantiles of the training values."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from stages.networks.numbers import Pieces, Standardize
from stages.schema import Block


class Encoder(nn.Module):
    """float32 [N, C] with NaN -> a token for each column [N, C, D].

    Args:
        size: D.
        bins: number of pieces between quantiles; the first and the last extend beyond them.
    """

    shape: tuple[int, int]

    def __init__(self, block: Block, *, size: PositiveInt = 16, bins: PositiveInt = 32) -> None:
        super().__init__()
        self.pieces, self.standardize = Pieces(block, bins), Standardize(block)
        columns = len(block.columns)
        self.weight = nn.Parameter(torch.empty(columns, bins + 2, size))
        self.bias = nn.Parameter(torch.empty(columns, size))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(bins + 2), 1 / math.sqrt(bins + 2))
        self.shape = (columns, size)

    def forward(self, x: Tensor) -> Tensor:
        parts_NxCxP = torch.cat([self.pieces(x), self.standardize(x)], dim=2)
        return torch.relu((parts_NxCxP[:, :, None] @ self.weight)[:, :, 0] + self.bias)
