"""Random augmentations of training pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from stages.networks.draws import Draws


@dataclass(frozen=True)
class Options:
    """The largest change of each kind; the change is uniform. Beyond a picture's edge its edge pixels are repeated."""

    shift: float = 0.0  # share of the side, up, down, left, right
    rotate: float = 0.0  # degrees, either way
    scale: float = 0.0  # share of the size, larger or smaller
    flip: bool = False  # left to right, half of the time
    vflip: bool = False  # top to bottom, half of the time
    erase: float = 0.0  # share of the side: a rectangle up to this size becomes the picture's mean
    brightness: float = 0.0  # share of full white
    contrast: float = 0.0  # share of the deviation from the picture's mean
    saturation: float = 0.0  # share of the deviation from gray; no effect on gray-scale pictures

    def __post_init__(self) -> None:
        for option in fields(self):
            value, most = getattr(self, option.name), 180.0 if option.name == "rotate" else 1.0
            if not 0 <= value <= most:
                raise ValueError(f"{option.name} must be between 0 and {most:g}, not {value}")


def augment(x: Tensor, options: Options, generator: Draws) -> Tensor:
    """uint8 [N, H, W, C] -> the same shape and type. An option that is off draws no random numbers."""
    if options.rotate or options.scale:
        x = _warp(x, options, generator)
    elif options.shift or options.flip or options.vflip:
        x = _slide(x, options, generator)
    if options.brightness or options.contrast or options.saturation:
        x = _recolor(x, options, generator)
    if options.erase:
        x = _erase(x, options, generator)
    return x


def _slide(x: Tensor, options: Options, generator: Draws) -> Tensor:
    """Shift by whole pixels and mirror, in one gather without interpolation."""
    height, width = x.shape[1:3]
    down_N, right_N, vflip_N, flip_N = generator.uniform(4).to(x.device).unbind(1)
    row_NxH = _indices(height, options.shift, down_N, (vflip_N < 0.5) & options.vflip)
    column_NxW = _indices(width, options.shift, right_N, (flip_N < 0.5) & options.flip)
    sample_N = torch.arange(len(x), device=x.device)
    return x[sample_N[:, None, None], row_NxH[:, :, None], column_NxW[:, None, :]]


def _indices(side: int, shift: float, draw_N: Tensor, mirrored_N: Tensor) -> Tensor:
    """The source of every row or column of each picture: int64 [N, side]."""
    offset_N = ((2 * draw_N - 1) * shift * side).round().long()
    index_NxS = (torch.arange(side, device=draw_N.device) + offset_N[:, None]).clamp(0, side - 1)
    return torch.where(mirrored_N[:, None], side - 1 - index_NxS, index_NxS)


def _warp(x: Tensor, options: Options, generator: Draws) -> Tensor:
    """Shift, rotate, scale and mirror, in one bilinear sampling."""
    _, height, width, channels = x.shape
    u_Nx6 = generator.uniform(6).to(x.device)
    signed_Nx4 = 2 * u_Nx6[:, :4] - 1
    angle_N = signed_Nx4[:, 0] * math.radians(options.rotate)
    zoom_N = torch.exp(-signed_Nx4[:, 1] * math.log1p(options.scale))  # larger as often as smaller
    right_N, down_N = signed_Nx4[:, 2] * 2 * options.shift, signed_Nx4[:, 3] * 2 * options.shift
    mirror_N = 1 - 2 * ((u_Nx6[:, 4] < 0.5) & options.flip).float()
    vmirror_N = 1 - 2 * ((u_Nx6[:, 5] < 0.5) & options.vflip).float()
    cosine_N, sine_N = zoom_N * angle_N.cos(), zoom_N * angle_N.sin()
    # affine_grid's unit is half a side, so the rotation of a picture that is not square needs the ratio of its sides
    row_x = torch.stack([cosine_N * mirror_N, -sine_N * (height / width), right_N], dim=1)
    row_y = torch.stack([sine_N * (width / height), cosine_N * vmirror_N, down_N], dim=1)
    theta_Nx2x3 = torch.stack([row_x, row_y], dim=1)
    grid = functional.affine_grid(theta_Nx2x3, [len(x), channels, height, width], align_corners=False)
    pixels = x.permute(0, 3, 1, 2).float()
    warped = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return _to_bytes(warped.permute(0, 2, 3, 1))


def _recolor(x: Tensor, options: Options, generator: Draws) -> Tensor:
    signed_Nx3 = 2 * generator.uniform(3).to(x.device) - 1
    light, contrast, saturation = signed_Nx3[:, :, None, None, None].unbind(1)
    pixels = x.float()
    gray = pixels.mean(3, keepdim=True)
    pixels = gray + (pixels - gray) * (1 + saturation * options.saturation)
    mean = gray.mean((1, 2), keepdim=True)
    return _to_bytes(mean + (pixels - mean) * (1 + contrast * options.contrast) + 255 * light * options.brightness)


def _erase(x: Tensor, options: Options, generator: Draws) -> Tensor:
    top_N, left_N, high_N, wide_N = generator.uniform(4).to(x.device).unbind(1)
    row_NxH = _within(x.shape[1], options.erase, top_N, high_N)
    column_NxW = _within(x.shape[2], options.erase, left_N, wide_N)
    inside = (row_NxH[:, :, None] & column_NxW[:, None, :])[..., None]
    return torch.where(inside, _to_bytes(x.float().mean((1, 2), keepdim=True)), x)


def _within(side: int, most: float, center_N: Tensor, size_N: Tensor) -> Tensor:
    pixel = torch.arange(side, device=center_N.device) + 0.5
    return (pixel - center_N[:, None] * side).abs() < size_N[:, None] * most * side / 2


def _to_bytes(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8).contiguous()
