"""Self-attention from basic operations, which every exporter and runtime supports."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """One pre-norm transformer layer: tokens [N, T, D] -> the same shape.

    (Vaswani et al. 2017; the norm before each part, as in Xiong et al. 2020.)
    """

    def __init__(self, size: int, heads: int, expansion: float, dropout: float) -> None:
        super().__init__()
        if size % heads:
            raise ValueError(f"size {size} does not divide among {heads} heads")
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.norm, self.project, self.mix = nn.LayerNorm(size), nn.Linear(size, 3 * size), nn.Linear(size, size)
        inner = int(size * expansion)
        self.widen = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, size)
        )

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """`hidden` bool [N, T]: tokens that get no attention, such as padding."""
        rows, tokens, size = x.shape
        parts = self.project(self.norm(x)).reshape(rows, tokens, 3, self.heads, size // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) / math.sqrt(size // self.heads)
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None, None], -1e9)
        mixed = (self.drop(torch.softmax(scores, dim=3)) @ value).transpose(1, 2).reshape(rows, tokens, size)
        x = x + self.drop(self.mix(mixed))
        return x + self.drop(self.widen(x))
