"""Embeddings shared by text encoders: a vector for each word, and the padding mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.schema import Block

PADDING, UNKNOWN, START = 0, 1, 2  # codes, as the kind text writes them


class Words(nn.Module):
    """Codes int32 [N, L] -> vectors [N, L, D], and the mask bool [N, L], true at padding.

    In training, a share `dropout` of the words is replaced by the unknown word, so that its vector learns, and as large
    a share of the vectors' values is dropped.
    """

    def __init__(self, block: Block, size: int, dropout: float) -> None:
        super().__init__()
        fitted = block.columns[0].fitted
        if len(block.columns) != 1 or not {"size", "length"} <= fitted.keys():
            raise ValueError(f"the block {block.name!r} holds no words: give it another encoder")
        self.table = nn.Embedding(fitted["size"], size)
        nn.init.normal_(self.table.weight, std=size**-0.5)
        self.share, self.drop = dropout, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = x.long()
        if self.training and self.share:
            replaced = (torch.rand(codes.shape, device=codes.device) < self.share) & (codes > START)
            codes = torch.where(replaced, UNKNOWN, codes)
        return self.drop(self.table(codes)), codes == PADDING
