"""A multilayer perceptron without batch statistics, such as the classic 784-64-10."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stages.networks.normalize import Normalize
from stages.schema import Block


class Encoder(nn.Module):
    """[N, *shape] as stored -> one token [N, 1, D], D the last of `hidden`."""

    shape: tuple[int, int]

    def __init__(
        self,
        block: Block,
        *,
        hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64,),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(block)
        widths = (math.prod(block.tensor.shape), *hidden)
        layers = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
        ]
        self.layers = nn.Sequential(*layers)
        self.shape = (1, hidden[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.normalize(x).flatten(1))[:, None]
