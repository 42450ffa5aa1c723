"""A trunk that concatenates the tokens of all blocks and applies residual blocks."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn


class Trunk(nn.Module):
    """List of tokens [N, T_i, D_i] -> features [N, width].

    The ResNet for tables of Gorishniy et al., "Revisiting deep learning models for tabular data" (NeurIPS 2021), with
    layer norm instead of batch norm, so that resumed runs and several processes agree.

    Args:
        width: of the features.
        depth: number of residual blocks.
        expansion: inner width of a block over that of the features.
        dropout: inside each block.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        *,
        width: PositiveInt = 128,
        depth: NonNegativeInt = 2,
        expansion: PositiveInt = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Linear(sum(tokens * size for tokens, size in shapes), width)
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width * expansion),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(width * expansion, width),
            )
            for _ in range(depth)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.ReLU())

    def forward(self, tokens: list[Tensor]) -> Tensor:
        x = self.first(torch.cat([token.flatten(1) for token in tokens], dim=1))
        for step in self.steps:
            x = x + step(x)
        return self.last(x)
