"""Broken and large pictures: which are rejected, with which reason, and at what cost."""

import io
import json
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from stages.schema import TooMuch
from stages.schema.kinds import image
from tests.support.pictures import COLOR, RGB, SORTS, encoded, noise, pixels


def claimed(width, height, gray=b"\0"):
    """A valid PNG, except that it has far fewer pixels than its header declares."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(gray, 1)) + chunk(b"IEND", b"")


BROKEN = {
    "zero bytes": (b"", "empty: no bytes"),
    "text": (b"hello world, not pixels", r"not a picture that Pillow can read \(begins with b'hello wo'\)"),
    "a header alone": (SORTS["rgb"][:20], "not a picture that Pillow can read"),
    "truncated PNG": (encoded(Image.fromarray(noise(60, 60)))[:1500], "broken picture"),
    "truncated JPEG": (
        encoded(Image.fromarray(noise(60, 60)), "JPEG")[:900],
        "broken picture: image file is truncated",
    ),
    "pixels missing": (claimed(60, 60), "broken picture"),
    "bomb": (claimed(20_000, 20_000), "too large: over 64,000,000 pixels"),
    "over our limit": (claimed(8_001, 8_000), "too large: 8001x8000 is over 64,000,000 pixels"),
    "a program": (encoded(RGB, "EPS"), "EPS is a program, not a picture"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [lambda value: image.facts([value]), pixels], ids=["facts", "transform"])
def test_broken_pictures_are_rejected_with_a_reason(name, read):
    value, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        read(value)


def test_a_decompression_bomb_is_rejected_before_it_is_decoded():
    bomb = claimed(8_001, 8_000, bytes(8_000 * 8_002))
    started = time.process_time()
    with pytest.raises(ValueError, match="too large"):
        image.facts([bomb])
    assert time.process_time() - started < 0.1


def many_scans(extra):
    """A progressive JPEG whose last scan is repeated `extra` times: much work for a hundred bytes each."""
    value = encoded(Image.new("RGB", (400, 400)), "JPEG", progressive=True)
    return value[:-2] + value[value.rindex(b"\xff\xda") : -2] * extra + value[-2:]


def icon(inside):
    """An icon whose directory declares 16x16 for any picture inside."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 8, len(inside), 22) + inside


def with_chunks(name, body, count):
    value = encoded(RGB)
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return value[:33] + chunk * count + value[33:]


def test_the_largest_allowed_picture_is_fitted_to_the_training_pictures():
    small, large = encoded(RGB), encoded(Image.new("L", (3000, 2000)))
    assert image.fit([[small]], image.Options())["max_pixels"] == image.LEAST_PIXELS
    assert image.fit([[small, large]], image.Options())["max_pixels"] == 8 * (6_000_000 + 2 * len(large) + 2 * 200)
    assert image.fit([[small]], image.Options(max_pixels=1000))["max_pixels"] == 1000
    with pytest.raises(ValueError, match="max_pixels must be between 1 and 64,000,000"):
        image.Options(max_pixels=64_000_001)
    with pytest.raises(ValueError, match="too large: 3000x2000 is over 4,000,000 pixels"):
        pixels(large, COLOR | {"max_pixels": 4_000_000})
    assert pixels(large).shape == (6, 9, 3)  # a schema from before `max_pixels` existed


@pytest.mark.parametrize(
    "value",
    [
        icon(claimed(3000, 3000, bytes(3000 * 3001))),
        with_chunks(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**20), 9), 100),
        with_chunks(b"prVt", b"", 100_000),
        b"\xff\xd8" + b"\xff\xee\0\2" * 100_000 + encoded(RGB, "JPEG")[2:],
    ],
    ids=["an icon", "profiles", "chunks", "segments"],
)
def test_large_hidden_parts_are_rejected_before_they_are_read(value):
    started = time.process_time()
    with pytest.raises(ValueError, match=r"too large|its metadata would take longer"):
        pixels(value, COLOR | {"max_pixels": 1_000_000})
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "values",
    [
        [encoded(Image.new("L", (1000, 1000)))] * 64,
        [many_scans(3200)],
        [encoded(Image.new("RGB", (800, 800)), "DDS")],  # decoded in Python
        [encoded(Image.fromarray(noise(1200, 1200, 3)), "JPEG2000")],
    ],
    ids=["many", "scans", "slow decoder", "slow format"],
)
def test_the_cost_of_a_request_is_bounded(values):
    fitted = image.bounded(COLOR | {"max_pixels": 4_000_000}, 64)
    assert fitted["max_cost"] == 32_000_000
    with pytest.raises(TooMuch, match="over 32,000,000"):
        image.transform(values, fitted)


def test_bounds_do_not_change_arrays():
    for value in SORTS.values():
        fitted = image.fit([[value]], image.Options(height=6, width=9, channels=3))
        np.testing.assert_array_equal(pixels(value), pixels(value, image.bounded(fitted, 1)))
    many = [encoded(Image.new("L", (1000, 1000)))] * 40
    assert len(image.transform(many, COLOR | {"max_pixels": 4_000_000})) == 40  # as `prepare` does


def test_a_request_full_of_the_largest_training_pictures_is_accepted():
    for value in (encoded(Image.new("RGB", (300, 300)), "DDS"), encoded(RGB)):
        fitted = image.bounded(image.fit([[value]], image.Options()), 64)
        assert 64 * image._cost(Image.open(io.BytesIO(value)), value) <= fitted["max_cost"]


def test_training_pictures_of_different_sizes_are_within_the_fitted_bound():
    values = [encoded(Image.fromarray(noise(side, 2 * side, 3))) for side in (10, 40, 100)]
    fitted = image.fit([values[:1], values[1:]], image.Options(max_side=64))
    assert (fitted["height"], fitted["width"], fitted["channels"]) == (32, 64, 3)
    exact = image.transform(values, fitted).reshape(-1, 3).astype(np.float64)
    assert fitted["mean"] == exact.mean(0).round(4).tolist()
    assert fitted["std"] == exact.std(0).round(4).tolist()
    assert fitted == image.fit([values[::-1]], image.Options(max_side=64))
    assert json.loads(json.dumps(fitted)) == fitted
