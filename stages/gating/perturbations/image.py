"""Perturbations of pictures: shifts, brightness, noise and flips."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.gating.perturbations import Perturbation
from stages.schema.kinds.image import raw, upright


def shift(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Shift by a share of each side, up or down and left or right; repeat the edge pixels."""
    pixels_HxWxC = _pixels(value, fitted)
    for axis in (0, 1):
        pixels_HxWxC = _shifted(pixels_HxWxC, _sign(draw) * by * pixels_HxWxC.shape[axis], axis)
    return _encoded(pixels_HxWxC)


def brightness(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Make lighter or darker by a share of full white."""
    return _encoded(_pixels(value, fitted) + _sign(draw) * by * 255)


def noise(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Add normal noise to every pixel and channel; its standard deviation is a share of full white."""
    pixels_HxWxC = _pixels(value, fitted)
    return _encoded(pixels_HxWxC + draw.normal(0.0, by * 255, pixels_HxWxC.shape))


def flip(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Mirror left to right."""
    return _encoded(_pixels(value, fitted)[:, ::-1])


def vflip(value: bytes, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> bytes:
    """Mirror top to bottom."""
    return _encoded(_pixels(value, fitted)[::-1])


CHANGES = {
    "shift": Perturbation(shift, 0.5),
    "brightness": Perturbation(brightness),
    "noise": Perturbation(noise),
    "flip": Perturbation(flip, 0.0),
    "vflip": Perturbation(vflip, 0.0),
}


def _pixels(value: bytes, fitted: Mapping[str, Any]) -> np.ndarray:
    """float64 [H, W, C] at the picture's own size, 0 to 255, in the channels that the model sees."""
    picture = upright(value, "L" if fitted["channels"] == 1 else "RGB", fitted)
    return np.asarray(picture, np.float64).reshape(picture.height, picture.width, -1)


def _encoded(pixels_HxWxC: np.ndarray) -> bytes:
    return raw(pixels_HxWxC.round().clip(0, 255).astype(np.uint8))


def _sign(draw: np.random.Generator) -> float:
    return 1.0 if draw.random() < 0.5 else -1.0


def _shifted(pixels_HxWxC: np.ndarray, by: float, axis: int) -> np.ndarray:
    """Shift along an axis by a number of pixels, with linear interpolation for fractions."""
    side, whole = pixels_HxWxC.shape[axis], math.floor(by)
    near_HxWxC, far_HxWxC = (
        pixels_HxWxC.take((np.arange(side) - whole - step).clip(0, side - 1), axis) for step in (0, 1)
    )
    return np.asarray(near_HxWxC + (by - whole) * (far_HxWxC - near_HxWxC))
