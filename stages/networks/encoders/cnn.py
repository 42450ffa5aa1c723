"""A small residual network for pictures of about 8 to 256 pixels a side, gray-scale or color."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stages.networks.normalize import Normalize
from stages.schema import Block

FULL = 16  # channels that oneDNN processes at once, at most


class Encoder(nn.Module):
    """uint8 [N, H, W, C] as stored -> one token [N, 1, D].

    The stem and the number of stages follow the shorter side: 8 pixels are read at full resolution and halved once,
    28 become 14, 7 and 4, 64 become 32, 16, 8 and 4, and 224 become 56, 28, 14, 7 and 4. Each halving doubles the
    channels.

    Args:
        width: channels of the first stage.
        depth: residual blocks in each stage.
        norm: "batch", or "group" if ranks or resumed runs must agree exactly with one process.
        dropout: share of whole channels dropped inside each residual block.
    """

    shape: tuple[int, int]

    def __init__(
        self,
        block: Block,
        *,
        width: PositiveInt = 32,
        depth: PositiveInt = 1,
        norm: Literal["batch", "group"] = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        if len(block.tensor.shape) != 3:
            raise ValueError(f"a cnn reads pictures, not {block.name!r} of shape {block.tensor.shape}")
        height, breadth, channels = block.tensor.shape
        stem, halvings = _plan(min(height, breadth))
        self.normalize = Normalize(block)
        kernel = {1: 3, 2: 5, 4: 7}[stem]
        first = nn.Conv2d(channels, width, kernel, stem, kernel // 2, bias=False)
        layers: list[nn.Module] = [first, _norm(norm, width), nn.ReLU()]
        inner = width
        for stage in range(halvings + 1):
            outer = width * 2**stage
            for step in range(depth):
                layers.append(_Residual(inner, outer, 2 if stage and not step else 1, norm, dropout))
                inner = outer
        self.layers = nn.Sequential(*layers)
        self.shape = (1, inner)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the pictures are stored

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.normalize(x).permute(0, 3, 1, 2)).mean((2, 3))[:, None]


class _Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int, norm: str, dropout: float) -> None:
        super().__init__()
        last = _norm(norm, outer)
        nn.init.zeros_(last.weight)  # each block begins as its shortcut (Goyal et al. 2017)
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            _norm(norm, outer),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            last,
        )
        self.shortcut: nn.Module = nn.Identity()
        if inner != outer or stride > 1:
            self.shortcut = nn.Sequential(_Shortcut(inner, outer, 1, stride, bias=False), _norm(norm, outer))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Shortcut(nn.Conv2d):
    """A 1x1 convolution. With a stride and few channels, oneDNN's gradient writes past its memory: issue 6035."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.in_channels >= FULL:
            return super().forward(x)
        down, right = self.stride
        return nn.functional.conv2d(x[:, :, ::down, ::right], self.weight)


def _plan(side: int) -> tuple[int, int]:
    """The shorter side in pixels -> the stride of the stem, and the number of halvings after it."""
    stem = 1 if side <= 16 else 2 if side <= 64 else 4
    side = -(-side // stem)
    halvings = 0
    while side > 5:
        side = -(-side // 2)
        halvings += 1
    return stem, halvings


def _norm(norm: str, channels: int) -> nn.BatchNorm2d | nn.GroupNorm:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = max(count for count in (8, 4, 2, 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)
