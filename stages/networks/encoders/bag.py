"""A text encoder that ignores the order of words: the linear model of texts, and more with a trunk behind it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stages.networks.words import START, Words
from stages.schema import Block


class Encoder(nn.Module):
    """Codes int32 [N, L], 0 is padding -> one token [N, 1, 2 * D] of their vectors.

    It holds the vectors' sum over the root of their number, and their maximum. With a linear layer behind it, the first
    half is fastText's classifier (Joulin et al., "Bag of tricks for efficient text classification", EACL 2017).

    Args:
        size: D, of the words' vectors.
        dropout: of words and of their vectors.
    """

    shape: tuple[int, int]

    def __init__(
        self, block: Block, *, size: PositiveInt = 128, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    ) -> None:
        super().__init__()
        self.words = Words(block, size, dropout)
        self.shape = (1, 2 * size)

    def forward(self, x: Tensor) -> Tensor:
        vectors, hidden = self.words(x)
        absent = (hidden | (x == START))[:, :, None]
        present = (~absent).sum(1).clamp(min=1)
        total = vectors.masked_fill(absent, 0.0).sum(1) / present.sqrt()
        return torch.cat([total, vectors.masked_fill(absent, -1e4).amax(1).clamp(min=-1.0)], dim=1)[:, None]
