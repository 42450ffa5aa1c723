"""A trunk of self-attention over the tokens of all blocks."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from stages.networks.attention import Layer


class Trunk(nn.Module):
    """List of tokens [N, T_i, D_i] -> features [N, width] of an added token, as BERT's [CLS].

    Over `linear` numbers and `embedding` categories this is the FT-Transformer of Gorishniy et al., "Revisiting deep
    learning models for tabular data" (NeurIPS 2021).

    Args:
        width: size of every token; blocks of another size are projected to it.
        depth: number of layers.
        heads: number of attention heads in each layer.
        expansion: width of a layer's feed-forward part over that of its tokens.
        dropout: of attention and feed-forward parts.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        *,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        heads: PositiveInt = 4,
        expansion: PositiveFloat = 2.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.width = width
        self.fit = nn.ModuleList(nn.Identity() if size == width else nn.Linear(size, width) for _, size in shapes)
        self.own = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.layers = nn.ModuleList(Layer(width, heads, expansion, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: list[Tensor]) -> Tensor:
        added = self.own.expand(tokens[0].shape[0], -1, -1)
        x = torch.cat([added, *(fit(token) for fit, token in zip(self.fit, tokens, strict=True))], dim=1)
        for layer in self.layers:
            x = layer(x)
        return torch.relu(self.norm(x[:, 0]))
