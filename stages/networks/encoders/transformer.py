"""A transformer over words."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from stages.networks.attention import Layer
from stages.networks.words import Words
from stages.schema import Block


class Encoder(nn.Module):
    """Codes int32 [N, L], 0 is padding -> one token [N, 1, 2 * D]: the words' mean and maximum after attention.

    Args:
        size: D.
        depth: number of layers.
        heads: number of attention heads in each layer.
        expansion: width of a layer's feed-forward part over D.
        dropout: of words, their vectors, attention and feed-forward parts.
    """

    shape: tuple[int, int]

    def __init__(
        self,
        block: Block,
        *,
        size: PositiveInt = 128,
        depth: PositiveInt = 2,
        heads: PositiveInt = 4,
        expansion: PositiveFloat = 2.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    ) -> None:
        super().__init__()
        self.words = Words(block, size, dropout)
        self.place = nn.Parameter(torch.randn(1, block.tensor.shape[0], size) * 0.1 * size**-0.5)
        self.layers = nn.ModuleList(Layer(size, heads, expansion, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(size)
        self.shape = (1, 2 * size)

    def forward(self, x: Tensor) -> Tensor:
        vectors, hidden = self.words(x)
        states = vectors + self.place
        for layer in self.layers:
            states = layer(states, hidden)
        states, absent = self.norm(states), hidden[:, :, None]
        mean = states.masked_fill(absent, 0.0).sum(1) / (~absent).sum(1)
        return torch.cat([mean, states.masked_fill(absent, -1e4).amax(1)], dim=1)[:, None]
