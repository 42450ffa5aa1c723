"""Normalize stored values to zero mean and unit variance, inside the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.schema import Block


class Normalize(nn.Module):
    """[N, ..., C] as stored -> float32 of that shape, by the fitted `mean` and `std` of the block's only column.

    Both come from `schema.json` and are not stored with the weights, since new data bring new values.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        if len(block.columns) != 1 or not {"mean", "std"} <= block.columns[0].fitted.keys():
            raise ValueError(f"the block {block.name!r} has no fitted mean and std: give it another encoder")
        fitted = block.columns[0].fitted
        self.register_buffer("mean", torch.tensor(fitted["mean"], dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(fitted["std"], dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std
