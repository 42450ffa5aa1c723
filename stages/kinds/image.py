"""Pictures, in whatever format Pillow reads."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "bytes", False, False, "cnn"

MAX_PIXELS = 64_000_000  # a picture of more is refused before it is decoded
MAX_BYTES = 512_000_000  # a file of more is not even read
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 16 bits a sample
_GREY = ("1", "L", "LA", "La", *_WIDE, "F")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_PROGRAMS = ("EPS",)  # Pillow would have Ghostscript run it
_PACK = struct.Struct("<256q").pack  # several times as fast as numpy is at a list
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Options:
    height: int | None = None  # both or none; without them: the middle size of the training pictures,
    width: int | None = None  # shrunk until its longer side is max_side
    max_side: int = 64
    channels: int | None = None  # 1 or 3; without it: 1 if every training picture is grey

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        for name in ("height", "width", "max_side"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= 4096:
                raise ValueError(f"{name} must be between 1 and 4096, not {side}")


def raw(value: Any) -> bytes:
    """A path, a Pillow picture, an array uint8 [H, W] or [H, W, C], or encoded bytes -> encoded bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, Path)):
        with open(value, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"too large: {size:,} bytes are over {MAX_BYTES:,}")
            return file.read(size or -1)  # a pipe tells no size
    if value is None:
        raise ValueError("missing")
    try:
        picture = value if isinstance(value, Image.Image) else _drawn(np.asarray(value))
        encoded = io.BytesIO()
        picture.save(encoded, format="PNG")
    except Exception as error:
        raise ValueError(f"cannot become a PNG: {error}") from error
    return encoded.getvalue()


def likely(values: Sequence[Any]) -> float:
    """How well a few cells that are not missing look like names of pictures, 0 to 1."""
    endings = Image.registered_extensions()
    named = sum(os.path.splitext(str(value))[1].lower() in endings for value in values)
    return named / max(1, len(values))


def facts(values: Iterable[bytes]) -> dict[str, np.ndarray]:
    """Size and mode as stored; brightness and contrast (mean and deviation of grey, 0 to 255) as seen."""
    rows = [_facts(value) for value in values]
    width, height, mode, frames, counts = zip(*rows, strict=True) if rows else ((),) * 5
    brightness, contrast = _moments(np.frombuffer(b"".join(counts), "<i8").reshape(-1, 256))
    return {
        "width": np.array(width, np.int64),
        "height": np.array(height, np.int64),
        "mode": np.array(mode, object),
        "frames": np.array(frames, np.int64),
        "brightness": brightness.round(4),
        "contrast": contrast.round(4),
    }


def fit(chunks: Iterable[Iterable[bytes]], options: Options) -> dict[str, Any]:
    """Size, channels, and the exact mean and standard deviation of each channel over all training pixels."""
    widths, heights, grey = [], [], True
    for value in _each(chunks):
        picture = _open(value)
        turned = picture.format != "TIFF" and _orientation(picture) >= 5  # Pillow gives a TIFF's size as turned
        width, height = picture.size[::-1] if turned else picture.size
        widths.append(width)
        heights.append(height)
        grey = grey and picture.mode in _GREY
    if not widths:
        raise ValueError("there is no training picture to fit on")
    shape = _size(widths, heights, options)
    size = {"height": shape[0], "width": shape[1], "channels": options.channels or (1 if grey else 3)}
    counts_Cx256 = np.zeros((size["channels"], 256), np.int64)  # whole numbers: the order of the pictures cannot matter
    for value in _each(chunks):
        counts_Cx256 += np.array(_resized(value, size).histogram(), np.int64).reshape(-1, 256)
    mean, std = _moments(counts_Cx256)
    std[std < 1.0] = 1.0  # a constant channel is left as it is
    return size | {"mean": mean.round(4).tolist(), "std": std.round(4).tolist()}


def transform(values: Iterable[bytes], fitted: dict[str, Any]) -> np.ndarray:
    """[N] encoded pictures -> uint8 [N, H, W, C]: turned upright, resized without keeping the ratio of the sides."""
    rows = list(values)
    pixels_NxHxWxC = np.empty((len(rows), fitted["height"], fitted["width"], fitted["channels"]), np.uint8)
    for row, value in enumerate(rows):
        pixels_NxHxWxC[row] = np.asarray(_resized(value, fitted), np.uint8).reshape(pixels_NxHxWxC.shape[1:])
    return pixels_NxHxWxC


def tensor(fitted: dict[str, Any]) -> Tensor:
    """uint8 (H, W, C)."""
    return Tensor("uint8", (fitted["height"], fitted["width"], fitted["channels"]), layout="FORMAT_NHWC")


def draw(value: bytes, axes: Any) -> None:
    """The picture on a matplotlib axes."""
    axes.imshow(np.asarray(upright(value, "RGB")))
    axes.set_axis_off()


def upright(value: bytes, mode: str) -> Image.Image:
    """The picture as people see it, as `mode` ("L" or "RGB")."""
    picture = _open(value)
    pixels = _decode(picture, mode)
    turn = _TURNS.get(_orientation(picture))
    return pixels if turn is None else pixels.transpose(turn)


def _drawn(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _each(chunks: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    return (value for chunk in chunks for value in chunk)


def _size(widths: list[int], heights: list[int], options: Options) -> tuple[int, int]:
    if options.height and options.width:
        return options.height, options.width
    height, width = float(np.median(heights)), float(np.median(widths))
    shrink = min(1.0, options.max_side / max(height, width))
    return max(1, math.floor(height * shrink + 0.5)), max(1, math.floor(width * shrink + 0.5))


def _moments(counts_Nx256: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row of a histogram over 0 to 255."""
    levels = np.arange(256, dtype=np.int64)
    pixels = counts_Nx256.sum(1).astype(np.float64)
    mean = (counts_Nx256 @ levels) / pixels
    return mean, np.sqrt(np.maximum((counts_Nx256 @ (levels * levels)) / pixels - mean**2, 0.0))


def _open(value: bytes) -> Image.Image:
    if not value:
        raise ValueError("empty: no bytes")
    try:
        picture = Image.open(io.BytesIO(value))
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: {error}") from error
    except Exception as error:  # Pillow's plug-ins raise whatever broken bytes make them raise
        raise ValueError(f"not a picture that Pillow can read (begins with {value[:8]!r})") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"too large: {picture.width}x{picture.height} is over {MAX_PIXELS:,} pixels")
    if picture.format in _PROGRAMS:
        raise ValueError(f"{picture.format} is a program, not a picture: convert it to PNG")
    return picture


def _decode(picture: Image.Image, mode: str) -> Image.Image:
    """As `mode` ("L" or "RGB"); transparency shows white, 16 bits become 8, an animation is its first frame."""
    try:
        picture.load()
        if picture.mode in _WIDE:
            wide = np.asarray(picture).astype(np.int64)
            picture = Image.fromarray(np.clip(wide >> 8, 0, 255).astype(np.uint8))
        if picture.mode == "LAB":  # which Pillow turns into grey by no other way
            picture = picture.convert("RGB")
        if picture.mode in _ALPHA or "transparency" in picture.info:
            overlay = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")
        return picture if picture.mode == mode else picture.convert(mode)
    except Exception as error:
        raise ValueError(f"broken picture: {error or type(error).__name__}") from error


def _resized(value: bytes, fitted: dict[str, Any]) -> Image.Image:
    picture = upright(value, "L" if fitted["channels"] == 1 else "RGB")
    size = (fitted["width"], fitted["height"])
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def _orientation(picture: Image.Image) -> int:
    """1 to 8 as EXIF has it; 1 where it has none or is broken."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _facts(value: bytes) -> tuple[int, int, str, int, bytes]:
    """Width, height, mode, frames, and how many pixels there are of each grey, packed: 256 int64."""
    picture = _open(value)
    width, height, mode, frames = *picture.size, picture.mode, _frames(picture)
    return width, height, mode, frames, _PACK(*_decode(picture, "L").histogram())


def _frames(picture: Image.Image) -> int:
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception as error:
        raise ValueError(f"broken picture: {error or type(error).__name__}") from error
