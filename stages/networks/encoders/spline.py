"""An encoder of numbers that keeps the number itself: a linear part beside learned functions of its quantile."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from stages.networks.numbers import Pieces, Standardize
from stages.schema import Block


class Encoder(nn.Module):
    """float32 [N, C] with NaN -> a token for each column [N, C, 2 + D].

    The first two values are the standardized number and 1.0 where it is missing. A linear layer over the tokens is
    then a generalized additive model, which contains the linear one.

    Args:
        size: D, learned functions of each number, linear between quantiles of the training values.
        bins: number of pieces between quantiles; the first and the last extend beyond them.
    """

    shape: tuple[int, int]

    def __init__(self, block: Block, *, size: PositiveInt = 8, bins: PositiveInt = 16) -> None:
        super().__init__()
        self.pieces, self.standardize = Pieces(block, bins), Standardize(block)
        columns = len(block.columns)
        self.weight = nn.Parameter(torch.empty(columns, bins, size))
        self.bias = nn.Parameter(torch.empty(columns, size))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(bins), 1 / math.sqrt(bins))
        self.shape = (columns, 2 + size)

    def forward(self, x: Tensor) -> Tensor:
        learned = torch.relu((self.pieces(x)[:, :, None] @ self.weight)[:, :, 0] + self.bias)
        return torch.cat([self.standardize(x), learned], dim=2)
