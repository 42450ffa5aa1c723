"""A bidirectional GRU over words."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stages.networks.words import Words
from stages.schema import Block


class Encoder(nn.Module):
    """Codes int32 [N, L], 0 is padding -> one token [N, 1, 3 * D].

    The token joins the largest states of each direction with the mean of the words' vectors. Padding has no part in
    any of them.

    Args:
        size: D, of the states and of the words' vectors.
        dropout: of words and of their vectors.
    """

    shape: tuple[int, int]

    def __init__(
        self, block: Block, *, size: PositiveInt = 128, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    ) -> None:
        super().__init__()
        self.words = Words(block, size, dropout)
        self.forwards, self.backwards = (nn.GRU(size, size, batch_first=True) for _ in range(2))
        self.shape = (1, 3 * size)

    def forward(self, x: Tensor) -> Tensor:
        vectors_NxLxD, hidden_NxL = self.words(x)
        absent = hidden_NxL[:, :, None]
        place = torch.arange(x.shape[1], device=x.device)
        last_N = (~hidden_NxL).sum(1) - 1
        # reverse the words of each row but not its padding, so that the backward GRU starts with a word
        reversed_NxL = torch.where(hidden_NxL, place, last_N[:, None] - place)
        reversed_words = torch.gather(vectors_NxLxD, 1, reversed_NxL[:, :, None].expand(-1, -1, vectors_NxLxD.shape[2]))
        there, _ = self.forwards(vectors_NxLxD)
        back, _ = self.backwards(reversed_words)
        largest = [states.masked_fill(absent, -1.0).amax(1) for states in (there, back)]  # states lie in -1 to 1
        mean = vectors_NxLxD.masked_fill(absent, 0.0).sum(1) / (last_N[:, None] + 1)
        return torch.cat([*largest, mean], dim=1)[:, None]
