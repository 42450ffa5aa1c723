"""An encoder of codes: a learned vector for each."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stages.schema import Block

UNKNOWN = 1  # the code of a value that training did not have; 0 is that of a missing one


class Encoder(nn.Module):
    """int32 [N, C] -> a token for each column [N, C, D]. Missing and unknown values have their own vectors.

    Args:
        size: D.
        dropout: share of the training values that are replaced by the unknown value, so that its vector learns.
    """

    shape: tuple[int, int]
    first: Tensor

    def __init__(
        self, block: Block, *, size: PositiveInt = 16, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ) -> None:
        super().__init__()
        if any("size" not in column.fitted for column in block.columns) or len(block.tensor.shape) != 1:
            raise ValueError(f"the block {block.name!r} holds no codes: give it another encoder")
        sizes = torch.tensor([column.fitted["size"] for column in block.columns])
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)
        self.table = nn.Embedding(int(sizes.sum()), size)
        nn.init.normal_(self.table.weight, std=size**-0.5)
        self.dropout = dropout
        self.shape = (len(sizes), size)

    def forward(self, x: Tensor) -> Tensor:
        codes = x.long()
        if self.training and self.dropout:
            hidden = torch.rand(codes.shape, device=codes.device) < self.dropout
            codes = torch.where(hidden, UNKNOWN, codes)
        return self.table(codes + self.first)
