"""Pictures, in any format that Pillow reads."""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from stages.schema import Tensor, TooMuch

RAW, PACKED, OPTIONAL, ENCODER = "bytes", False, False, "cnn"

MAX_PIXELS = 64_000_000  # upper bound of `max_pixels`; larger pictures are never decoded
LEAST_PIXELS = 4_000_000  # lower bound of the fitted `max_pixels`
ROOM = 8  # the fitted `max_pixels` over the largest training picture
FULL = 64  # rows of a request that may all be as large as the largest training picture
MAX_BYTES = 512_000_000  # larger files are not read
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # over 8 bits a sample
_GRAY = ("1", "L", "LA", "La", *_WIDE, "F")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_PROGRAMS = ("EPS",)  # Pillow would run Ghostscript on them
_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG that can unpack to a thousand times their size
_SIGNIFICANT, _BITS_PER_SAMPLE = "significant bits", 258  # a key of a picture's `info`; a tag of TIFF
_PNG = b"\x89PNG\r\n\x1a\n"
_SMALL = 4096  # bytes of a file in which only pixels take time
_SCANS = 16  # scans of a JPEG that count as one more picture; usual are 1 and, progressive, up to 14
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `open_header` rejects large pictures
# No format that Pillow reads looks like this.
_BASE64 = re.compile(rb"(?:data:[^,]{0,99};base64,)?([A-Za-z0-9+/]{4}[A-Za-z0-9+/\r\n]*+={0,2}\s*+)")
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
    """Options of a column of pictures in params.yaml."""

    height: int | None = None  # give both or neither; by default the median size of the training pictures,
    width: int | None = None  # shrunk until its longer side is max_side
    max_side: int = 64
    channels: int | None = None  # 1 or 3; by default 1 if every training picture is gray
    max_pixels: int | None = None  # of a picture; by default 8 times the largest training picture, at least 4 million
    bits: int | None = None  # of a sample, in pictures with over 8; by default those of the largest training sample

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        for name in ("height", "width", "max_side"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= 4096:
                raise ValueError(f"{name} must be between 1 and 4096, not {side}")
        if self.max_pixels is not None and not 1 <= self.max_pixels <= MAX_PIXELS:
            raise ValueError(f"max_pixels must be between 1 and {MAX_PIXELS:,}, not {self.max_pixels:,}")
        if self.bits is not None and not 8 <= self.bits <= 31:
            raise ValueError(f"bits must be between 8 and 31, not {self.bits}")


def raw(value: Any) -> bytes:
    """A path, a Pillow picture, an array uint8 [H, W] or [H, W, C], or encoded bytes -> encoded bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, Path)):
        with open(value, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"too large: {size:,} bytes are over {MAX_BYTES:,}")
            return file.read(size or -1)  # a pipe has no size
    if value is None:
        raise ValueError("missing")
    try:
        picture = value if isinstance(value, Image.Image) else _drawn(np.asarray(value))
        encoded = io.BytesIO()
        picture.save(encoded, format="PNG")
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"cannot become a PNG: {error}") from error
    return encoded.getvalue()


def received(value: bytes) -> bytes:
    """Decode base64, which JSON requests use; no picture looks like base64."""
    match = _BASE64.fullmatch(value)
    try:
        return base64.b64decode(match[1]) if match else value
    except binascii.Error:
        return value


def facts(values: Iterable[bytes]) -> dict[str, np.ndarray]:
    """Size and mode as stored; brightness and contrast, the mean and standard deviation of the gray levels, 0 to 255.

    In pictures with 16 bits a sample, 65,535 counts as 255: how many bits are used is not known before training.
    """
    rows = [_facts(value) for value in values]
    width, height, mode, frames, counts, step = zip(*rows, strict=True) if rows else ((),) * 6
    moments = _moments(np.frombuffer(b"".join(counts), "<i8").reshape(-1, 256))
    brightness, contrast = (moment * np.array(step, np.float64) for moment in moments)
    return {
        "width": np.array(width, np.int64),
        "height": np.array(height, np.int64),
        "mode": np.array(mode, object),
        "frames": np.array(frames, np.int64),
        "brightness": brightness.round(4),
        "contrast": contrast.round(4),
    }


def fit(chunks: Iterable[Iterable[bytes]], options: Options) -> dict[str, Any]:
    """Size, channels, `max_pixels`, and the exact mean and standard deviation of each channel.

    Also `bits`, those of the largest sample, if training pictures with over 8 bits a sample do not declare them.
    """
    widths, heights, gray, largest, bits = [], [], True, 0, options.bits or 0
    for value in chain.from_iterable(chunks):
        picture = open_header(value)
        largest = max(largest, _cost(picture, value))
        turned = picture.format != "TIFF" and _orientation(picture) >= 5  # Pillow has turned the size of a TIFF already
        width, height = picture.size[::-1] if turned else picture.size
        widths.append(width)
        heights.append(height)
        gray = gray and picture.mode in _GRAY
        bits = bits if options.bits else max(bits, bits_used(picture))
    if not widths:
        raise ValueError("there is no training picture to fit on: take the column out of schema.features")
    shape = _size(widths, heights, options)
    size: dict[str, Any] = {"height": shape[0], "width": shape[1], "channels": options.channels or (1 if gray else 3)}
    size |= {"bits": bits} if bits else {}
    counts_Cx256 = np.zeros((size["channels"], 256), np.int64)  # integers: the order of the pictures cannot matter
    for value in chain.from_iterable(chunks):
        counts_Cx256 += np.array(_resized(open_header(value), size).histogram(), np.int64).reshape(-1, 256)
    mean, std = _moments(counts_Cx256)
    std[std < 1.0] = 1.0  # a constant channel is left as it is
    bound = options.max_pixels or max(LEAST_PIXELS, ROOM * largest)
    return size | {"mean": mean.round(4).tolist(), "std": std.round(4).tolist(), "max_pixels": bound}


def transform(values: Iterable[bytes], fitted: dict[str, Any]) -> np.ndarray:
    """[N] encoded pictures -> uint8 [N, H, W, C]: turned upright, and resized without keeping the aspect ratio.

    All headers are read and the total cost is checked before the first picture is decoded.
    """
    pictures, total = [], 0
    for value in values:
        pictures.append(open_header(value, fitted.get("max_pixels", MAX_PIXELS)))
        total += _cost(pictures[-1], value)
        if total > fitted.get("max_cost", math.inf):
            raise TooMuch(
                f"too large together: the first {len(pictures)} pictures take as long to decode as {total:,} pixels,"
                f" over {fitted['max_cost']:,}: send fewer in a request"
            )
    pixels_NxHxWxC = np.empty((len(pictures), fitted["height"], fitted["width"], fitted["channels"]), np.uint8)
    for row, picture in enumerate(pictures):
        pixels_NxHxWxC[row] = np.asarray(_resized(picture, fitted), np.uint8).reshape(pixels_NxHxWxC.shape[1:])
    return pixels_NxHxWxC


def bounded(fitted: dict[str, Any], rows: int) -> dict[str, Any]:
    """`fitted` for a server, with `max_cost`, the pixels that the pictures of one request of `rows` may cost."""
    return fitted | {"max_cost": max(FULL, rows) * fitted.get("max_pixels", MAX_PIXELS) // ROOM}


def tensor(fitted: dict[str, Any]) -> Tensor:
    """uint8 (H, W, C)."""
    return Tensor("uint8", (fitted["height"], fitted["width"], fitted["channels"]), layout="FORMAT_NHWC")


def upright(value: bytes, mode: str, fitted: Mapping[str, Any]) -> Image.Image:
    """The picture turned upright, in `mode` "L" or "RGB"."""
    return _upright(open_header(value), mode, fitted)


def _upright(picture: Image.Image, mode: str, fitted: Mapping[str, Any]) -> Image.Image:
    pixels = _decode(picture, mode, fitted.get("bits", 16))
    turn = _TURNS.get(_orientation(picture))
    return pixels if turn is None else pixels.transpose(turn)


def _drawn(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim not in (2, 3) or pixels.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ValueError(f"pixels are an array uint8 [H, W] or [H, W, C], not {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


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


def open_header(value: bytes, most: int = MAX_PIXELS) -> Image.Image:
    """Open a picture, reading only its header.

    Raises:
        ValueError: it is not a picture, or has more than `most` pixels.
    """
    if not value:
        raise ValueError("empty: no bytes")
    most = min(most, MAX_PIXELS)
    if _metadata_cost(value) > most:
        raise ValueError("its metadata would take longer to read than its pixels: save it without metadata")
    Image.MAX_IMAGE_PIXELS = most  # for pictures inside as well, such as an icon's, which the header may not declare
    try:
        picture = Image.open(io.BytesIO(_readable(value)))
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: over {most:,} pixels") from error
    except Exception as error:  # Pillow's plug-ins may raise anything on broken bytes
        raise ValueError(f"not a picture that Pillow can read (begins with {value[:8]!r})") from error
    if picture.width * picture.height > most:
        raise ValueError(f"too large: {picture.width}x{picture.height} is over {most:,} pixels")
    if picture.format in _PROGRAMS:
        raise ValueError(f"{picture.format} is a program, not a picture: convert it to PNG")
    if picture.mode in _WIDE:
        picture.info[_SIGNIFICANT] = _significant(picture, value)
    return picture


def _cost(picture: Image.Image, value: bytes) -> int:
    """How long decoding takes, in pixels of a PNG (about 12 ns each)."""
    pixels = picture.width * picture.height
    if picture.format in ("JPEG", "MPO"):
        pixels += pixels * (value.count(b"\xff\xda") // _SCANS)
    elif picture.format == "JPEG2000":
        pixels = 3 * pixels + 12 * len(value)
    elif any(tile.codec_name in Image.DECODERS for tile in getattr(picture, "tile", ())):  # decoders in pure Python
        pixels *= 64
    return pixels + 2 * len(value) + _metadata_cost(value)


def _metadata_cost(value: bytes) -> int:
    """How long Pillow takes to read the metadata of a PNG or JPEG when it opens the file, in pixels of a PNG."""
    if len(value) < _SMALL:
        return 0
    cost = 0
    if value.startswith(b"\x89PNG"):
        for name, _, _ in _chunks(value):
            cost += 100_000 if name in _COMPRESSED else 0 if name == b"IDAT" else 200
    elif value.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(value) and value[at] == 0xFF and value[at + 1] != 0xDA:
            cost += 300
            at += 2 + max(2, int.from_bytes(value[at + 2 : at + 4], "big"))
    return cost


def _readable(value: bytes) -> bytes:
    """A PNG without the texts and profiles that unpack to more than Pillow allows; any other file as it is."""
    if not value.startswith(_PNG) or not any(name in value for name in _COMPRESSED):
        return value
    kept = [value[: len(_PNG)]]
    for name, at, end in _chunks(value):
        if not (name in _COMPRESSED and _unpacks_long(name, value[at + 8 : end - 4])):
            kept.append(value[at:end])
    return b"".join(kept)


def _chunks(value: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name, start and end of each chunk of a PNG."""
    at = len(_PNG)
    while at + 8 <= len(value):
        end = at + 12 + int.from_bytes(value[at : at + 4], "big")
        yield value[at + 4 : at + 8], at, end
        at = end


def _unpacks_long(name: bytes, chunk: bytes) -> bool:
    """Whether a compressed chunk of a PNG unpacks to more than Pillow allows, found without unpacking more."""
    rest = chunk.partition(b"\0")[2]
    packed = rest[1:]
    if name == b"iTXt":  # a flag, the method, the language and a translated keyword come before the text
        packed = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:
        return False
    return bool(unpacking.unconsumed_tail)


def _significant(picture: Image.Image, value: bytes) -> int:
    """The significant bits of a sample that the header of a picture with over 8 declares; 0 if it declares none."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = int(picture.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0])
        return bits if bits < 16 else 0
    if isinstance(picture, PngImagePlugin.PngImageFile):
        return next((value[at + 8] for name, at, end in _chunks(value) if name == b"sBIT" and end - at == 13), 0)
    return 0


def _samples(picture: Image.Image) -> tuple[np.ndarray, int]:
    """The samples of a loaded picture with over 8 bits, int64 [H, W], and their significant bits, 0 if undeclared.

    By the standard, the samples of a PNG with sBIT are scaled to all 16 bits. If low bits are set, they are not.
    """
    samples_HxW, bits = np.asarray(picture).astype(np.int64), picture.info.get(_SIGNIFICANT, 0)
    if picture.format == "PNG" and bits:
        used = int(np.bitwise_or.reduce(samples_HxW, axis=None))
        bits = max(8, bits) if bits < 16 and used < 1 << bits and used % (1 << (16 - bits)) else 16
    return samples_HxW, bits


def bits_used(picture: Image.Image) -> int:
    """The bits of the largest sample, at least 8; 0 for a picture with 8 bits a sample or with declared bits."""
    if picture.mode not in _WIDE:
        return 0
    try:
        picture.load()
        samples_HxW, bits = _samples(picture)
    except Exception as error:
        raise ValueError(f"broken picture: {error or type(error).__name__}") from error
    return 0 if bits else max(8, int(samples_HxW.max()).bit_length())


def _decode(picture: Image.Image, mode: str, bits: int) -> Image.Image:
    """The picture in `mode` "L" or "RGB", on white where it is transparent; the first frame of an animation.

    Of over 8 bits a sample, the upper 8 of the significant bits are kept: of `bits` if the file declares none.
    """
    try:
        picture.load()
        if picture.mode in _WIDE:
            samples_HxW, declared = _samples(picture)
            picture = Image.fromarray((samples_HxW >> ((declared or bits) - 8)).clip(0, 255).astype(np.uint8))
        if picture.mode == "LAB":  # Pillow cannot convert it to gray directly
            picture = picture.convert("RGB")
        if picture.mode in _ALPHA or "transparency" in picture.info:
            overlay = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")
        return picture if picture.mode == mode else picture.convert(mode)
    except Exception as error:
        raise ValueError(f"broken picture: {error or type(error).__name__}") from error


def _resized(opened: Image.Image, fitted: dict[str, Any]) -> Image.Image:
    picture = _upright(opened, "L" if fitted["channels"] == 1 else "RGB", fitted)
    size = (fitted["width"], fitted["height"])
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if EXIF is missing or broken."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _facts(value: bytes) -> tuple[int, int, str, int, bytes, float]:
    """Width, height, mode, number of frames, packed histogram of the gray levels (256 int64), and a level's step.

    In a dark picture with over 8 bits a sample the step is below 1, so that it does not look blank.
    """
    picture = open_header(value)
    width, height, mode, frames = *picture.size, picture.mode, _frames(picture)
    bits = min(16, bits_used(picture)) or 16
    return width, height, mode, frames, _PACK(*_decode(picture, "L", bits).histogram()), 2.0 ** (bits - 16)


def _frames(picture: Image.Image) -> int:
    """The number of frames of an animation. The extra pictures of a phone's photo (MPO) are not frames."""
    if picture.format == "MPO":
        return 1
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception as error:
        raise ValueError(f"broken picture: {error or type(error).__name__}") from error
