"""A trunk that concatenates the tokens of all blocks."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn


class Trunk(nn.Module):
    """List of tokens [N, T_i, D_i] -> features [N, F], F the sum of all T_i * D_i."""

    width: int

    def __init__(self, shapes: list[tuple[int, int]], *, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> None:
        super().__init__()
        self.width = sum(tokens * size for tokens, size in shapes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: list[Tensor]) -> Tensor:
        return self.dropout(torch.cat([token.flatten(1) for token in tokens], dim=1))
