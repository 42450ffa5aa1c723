"""A trunk of several perceptrons that share their weights, beside the tokens themselves."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn


class Trunk(nn.Module):
    """List of tokens [N, T_i, D_i] -> features [N, F + width]; in training [N, M, F + width].

    The first F features are the F = sum of T_i * D_i values of the tokens, so that the network contains the linear
    model (Cheng et al., "Wide & deep learning for recommender systems", 2016). The others are the mean of M
    perceptrons, which differ by the signs and scales of what they read and give (TabM of Gorishniy, Kotelnikov and
    Babenko, ICLR 2025). In training each is judged alone, so that they stay different.

    Args:
        width: of each layer.
        depth: number of layers.
        members: M.
        dropout: of each layer.
        wide: initial scale of the tokens among the features.
    """

    width: int

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        members: PositiveInt = 8,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        wide: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        inputs = sum(tokens * size for tokens, size in shapes)
        self.width = inputs + width
        self.scale = nn.Parameter(torch.full((inputs,), wide))
        self.read = nn.Parameter(_signs(members, inputs))
        self.give = nn.Parameter(_signs(members, width))
        self.layers = nn.ModuleList(nn.Linear(width if i else inputs, width) for i in range(depth))
        self.biases = nn.Parameter(torch.randn(depth, members, width) * 0.1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: list[Tensor]) -> Tensor:
        x_NxF = torch.cat([token.flatten(1) for token in tokens], dim=1)
        y = x_NxF[:, None] * self.read
        for layer, bias in zip(self.layers, self.biases, strict=True):
            y = self.dropout(torch.relu(layer(y) + bias))
        y, wide = y * self.give, (x_NxF * self.scale)[:, None]
        if not self.training:
            return torch.cat([wide, y.mean(1, keepdim=True)], dim=2)[:, 0]
        return torch.cat([wide.expand(-1, y.shape[1], -1), y], dim=2)


def _signs(rows: int, columns: int) -> Tensor:
    return torch.randint(0, 2, (rows, columns)).float() * 2 - 1
