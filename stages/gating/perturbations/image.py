"""Pictures taken a little otherwise: moved, lighter or darker, grainy, mirrored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.gating.perturbations import Change
from stages.schema.kinds.image import raw, upright


def shift(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Moved by that share of its sides, up or down and left or right; its edge goes on where nothing was."""
    pixels_HxWxC = _pixels(value, fitted)
    for axis in (0, 1):
        pixels_HxWxC = _moved(pixels_HxWxC, _either(draw) * by * pixels_HxWxC.shape[axis], axis)
    return _encoded(pixels_HxWxC)


def brightness(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Lighter or darker by that share of full white."""
    return _encoded(_pixels(value, fitted) + _either(draw) * by * 255)


def noise(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Normal noise on every pixel and channel, whose standard deviation is that share of full white."""
    pixels_HxWxC = _pixels(value, fitted)
    return _encoded(pixels_HxWxC + draw.normal(0.0, by * 255, pixels_HxWxC.shape))


def flip(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Left to right."""
    return _encoded(_pixels(value, fitted)[:, ::-1])


def vflip(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Upside down."""
    return _encoded(_pixels(value, fitted)[::-1])


CHANGES = {
    "shift": Change(shift, 0.5),
    "brightness": Change(brightness),
    "noise": Change(noise),
    "flip": Change(flip, 0.0),
    "vflip": Change(vflip, 0.0),
}


def _pixels(value: bytes, fitted: Mapping[str, Any]) -> np.ndarray:
    """float64 [H, W, C] of its own size, 0 to 255, in the channels that the model sees."""
    picture = upright(value, "L" if fitted["channels"] == 1 else "RGB", fitted)
    return np.asarray(picture, np.float64).reshape(picture.height, picture.width, -1)


def _encoded(pixels_HxWxC: np.ndarray) -> bytes:
    return raw(pixels_HxWxC.round().clip(0, 255).astype(np.uint8))


def _either(draw: np.random.Generator) -> float:
    return 1.0 if draw.random() < 0.5 else -1.0


def _moved(pixels_HxWxC: np.ndarray, by: float, axis: int) -> np.ndarray:
    """Along an axis by a number of pixels that need not be whole: linear between the two that it lies between."""
    side, whole = pixels_HxWxC.shape[axis], math.floor(by)
    near_HxWxC, far_HxWxC = (
        pixels_HxWxC.take((np.arange(side) - whole - one).clip(0, side - 1), axis) for one in (0, 1)
    )
    return np.asarray(near_HxWxC + (by - whole) * (far_HxWxC - near_HxWxC))
