"""An encoder of numbers: each token is a learned direction times the standardized value."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from stages.networks.numbers import Standardize
from stages.schema import Block


class Encoder(nn.Module):
    """float32 [N, C] with NaN -> a token for each column [N, C, D], as in the FT-Transformer.

    (Gorishniy, Rubachev, Khrulkov and Babenko, "Revisiting deep learning models for tabular data", NeurIPS 2021.)

    Args:
        size: D.
    """

    shape: tuple[int, int]

    def __init__(self, block: Block, *, size: PositiveInt = 16) -> None:
        super().__init__()
        self.standardize = Standardize(block)
        columns = len(self.standardize.mean)
        self.weight = nn.Parameter(torch.empty(columns, 2, size))
        self.bias = nn.Parameter(torch.empty(columns, size))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(size), 1 / math.sqrt(size))
        self.shape = (columns, size)

    def forward(self, x: Tensor) -> Tensor:
        return (self.standardize(x)[:, :, None] @ self.weight)[:, :, 0] + self.bias
