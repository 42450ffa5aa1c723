"""Pictures of every sort through real bytes: what is seen, what is refused and with which words."""

import io
import json
import os
import struct
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from stages.gating import perturbations
from stages.schema import TooMuch
from stages.schema.kinds import image
from tests.support.project import ROOT

SIZE = {"height": 6, "width": 9}
GRAY, COLOR = SIZE | {"channels": 1}, SIZE | {"channels": 3}


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encoded(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def facts(value):
    return {name: column.item() for name, column in image.facts([value]).items()}


def pixels(value, fitted=COLOR):
    return image.transform([value], fitted)[0]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def claimed(width, height, gray=b"\0"):
    """A sound PNG but for one thing: its pixels are far fewer than its header says."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(gray, 1)) + chunk(b"IEND", b"")


RGB = Image.fromarray(noise(6, 9, 3))
ANIMATION = [Image.fromarray(noise(6, 9, seed=frame)) for frame in range(3)]
LAB = ImageCms.applyTransform(
    RGB, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
)
SORTS = {
    "rgb": encoded(RGB),
    "gray": encoded(RGB.convert("L")),
    "jpeg": encoded(RGB, "JPEG"),
    "cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "16 bits": encoded(Image.fromarray(noise(6, 9, dtype=np.uint16))),
    "1 bit": encoded(RGB.convert("1")),
    "float": encoded(RGB.convert("F"), "TIFF"),
    "palette": encoded(RGB.convert("P")),
    "palette, one color clear": encoded(RGB.convert("P"), transparency=3),
    "rgb, one color clear": encoded(RGB, transparency=RGB.getpixel((0, 0))),
    "gray, alpha": encoded(Image.fromarray(noise(6, 9, 2))),
    "rgb, alpha": encoded(Image.fromarray(noise(6, 9, 4))),
    "animation": encoded(ANIMATION[0], "GIF", save_all=True, append_images=ANIMATION[1:]),
    "on its side": encoded(RGB, "JPEG", exif=turned(6)),
    "on its side, TIFF": encoded(RGB, "TIFF", exif=turned(6)),
    "lab": encoded(LAB, "TIFF"),
    "webp": encoded(RGB, "WEBP", lossless=True),
}


@pytest.mark.parametrize("sort", SORTS)
def test_every_kind_of_picture_becomes_arrays_with_facts(sort):
    value = SORTS[sort]
    fitted = image.fit([[value]], image.Options())
    assert image.transform([value], fitted).shape == (1, *image.tensor(fitted).shape)
    assert facts(value)["contrast"] > 0
    for channels in (1, 3):
        assert image.transform([value], SIZE | {"channels": channels}).dtype == np.uint8


def test_facts_describe_the_stored_picture():
    gray = noise(6, 9)
    assert facts(encoded(Image.fromarray(gray))) == {
        "width": 9,
        "height": 6,
        "mode": "L",
        "frames": 1,
        "brightness": round(gray.mean(), 4),
        "contrast": round(gray.std(), 4),
    }
    assert facts(SORTS["on its side"])["width"] == 9
    assert {facts(SORTS[sort])["mode"] for sort in ("cmyk", "16 bits", "1 bit")} == {"CMYK", "I;16", "1"}


def test_facts_of_a_picture_do_not_depend_on_others():
    together = image.facts(list(SORTS.values()))
    for row, value in enumerate(SORTS.values()):
        assert facts(value) == {
            name: column[row].item() if column.dtype != object else column[row] for name, column in together.items()
        }
    assert {name: len(column) for name, column in image.facts([]).items()} == dict.fromkeys(together, 0)


def test_the_array_of_a_picture_does_not_depend_on_others():
    together = image.transform(list(SORTS.values()), COLOR)
    assert all(np.array_equal(together[row], pixels(value)) for row, value in enumerate(SORTS.values()))


def test_pixels_survive_encoding():
    gray, color = noise(6, 9), noise(6, 9, 3)
    assert np.array_equal(pixels(image.raw(gray), GRAY)[..., 0], gray)
    assert np.array_equal(pixels(image.raw(gray[..., None]), GRAY)[..., 0], gray)
    assert np.array_equal(pixels(image.raw(color)), color)
    assert np.array_equal(pixels(image.raw(Image.fromarray(color))), color)
    assert image.raw(memoryview(b"bytes stay")) == b"bytes stay"


def test_raw_reads_the_bytes_of_a_path(tmp_path):
    (tmp_path / "picture.png").write_bytes(SORTS["rgb"])
    assert image.raw(tmp_path / "picture.png") == image.raw(str(tmp_path / "picture.png")) == SORTS["rgb"]


def test_a_giant_file_is_not_read(tmp_path):
    with open(tmp_path / "giant.png", "wb") as file:
        file.truncate(image.MAX_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(ValueError, match=r"too large: 512,000,001 bytes are over 512,000,000"):
        image.raw(tmp_path / "giant.png")


@pytest.mark.parametrize("value", [3.5, np.zeros((2, 2, 7), np.uint8), np.zeros((2, 2), complex)])
def test_values_that_are_not_pictures_are_an_error(value):
    with pytest.raises(ValueError, match="cannot become a PNG"):
        image.raw(value)


def test_transparent_parts_become_white():
    clear = Image.fromarray(np.array([[[9, 9, 9, 0], [200, 0, 0, 255]]], np.uint8))
    assert pixels(encoded(clear), {"height": 1, "width": 2, "channels": 3}).tolist() == [[[255] * 3, [200, 0, 0]]]
    first = RGB.getpixel((0, 0))
    assert pixels(SORTS["rgb, one color clear"])[0, 0].tolist() == [255] * 3 != list(first)


def test_of_sixteen_bits_the_upper_eight_are_kept():
    wide = noise(6, 9, dtype=np.uint16)
    assert np.array_equal(pixels(encoded(Image.fromarray(wide)), GRAY)[..., 0], wide >> 8)


def chunk_before_pixels(value, name, body):
    at = value.index(b"IDAT") - 4
    return (
        value[:at]
        + struct.pack(">I", len(body))
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body))
        + value[at:]
    )


def twelve_bits(samples):
    """A TIFF whose samples are packed, two in three bytes."""
    rows = b"".join(int("".join(f"{v:012b}" for v in row) + "0" * 4, 2).to_bytes(14, "big") for row in samples)
    tags = [(256, 9), (257, 6), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(rows))])
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + rows


DEEP = noise(6, 9, dtype=np.uint16) >> 4  # 12 bits in 16, as cameras and scanners give them


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_significant_bits_are_fitted_to_the_largest_training_sample(format):
    training = [encoded(Image.fromarray(samples), format) for samples in (DEEP >> 3, DEEP)]
    fitted = image.fit([training], image.Options())
    assert fitted["bits"] == 12 and 100 < fitted["mean"][0] * 2 / (1 + 1 / 8) < 156
    assert np.array_equal(pixels(training[0], fitted)[..., 0], DEEP >> 7)
    above = np.full((6, 9), 5000, np.uint16)  # than any in training: clipped
    assert (pixels(encoded(Image.fromarray(above), format), fitted) == 255).all()
    assert image.fit([training], image.Options(bits=16))["bits"] == 16
    assert "bits" not in image.fit([[SORTS["rgb"], SORTS["gray"]]], image.Options())


def test_significant_bits_declared_by_a_file_are_used():
    says = encoded(Image.fromarray(DEEP))
    shifted = encoded(Image.fromarray((DEEP << 4) | (DEEP >> 8)))  # as the standard of PNG has it
    for value in (
        chunk_before_pixels(says, b"sBIT", b"\x0c"),
        chunk_before_pixels(shifted, b"sBIT", b"\x0c"),
        twelve_bits(DEEP),
    ):
        assert "bits" not in image.fit([[value]], image.Options())
        assert np.array_equal(pixels(value, GRAY)[..., 0], DEEP >> 4)


def test_a_dark_picture_of_sixteen_bits_is_not_blank():
    small = noise(6, 9, dtype=np.uint8)
    found = facts(encoded(Image.fromarray(small.astype(np.uint16))))
    assert found["contrast"] == pytest.approx(small.std() / 256, abs=1e-4)


def test_perturbations_start_from_the_picture_that_the_model_sees():
    fitted = GRAY | {"bits": 12}
    flipped = perturbations.of("image")["flip"].make(
        encoded(Image.fromarray(DEEP)), 0.0, np.random.default_rng(0), fitted
    )
    assert np.array_equal(pixels(flipped, fitted)[..., 0], DEEP[:, ::-1] >> 4)


@pytest.mark.parametrize("chunk", ["zTXt", "iTXt", "iCCP", "late"])
def test_long_texts_and_profiles_in_a_png_are_ignored(chunk):
    """Pillow refuses what unpacks to more than a megabyte, as it may be a bomb."""
    long = b"a" * 2_000_000
    info = PngImagePlugin.PngInfo()
    if chunk == "zTXt":
        info.add_text("comment", long.decode(), zip=True)
    if chunk == "iTXt":
        info.add_itxt("comment", long.decode(), "en", "comment", zip=True)
    value = encoded(RGB, pnginfo=info, icc_profile=long if chunk == "iCCP" else None)
    if chunk == "late":  # behind the pixels
        body = b"zTXtcomment\0\0" + zlib.compress(long)
        late = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        value = value[:-12] + late + value[-12:]
    assert np.array_equal(pixels(value), np.asarray(RGB)) and facts(value)["width"] == RGB.width


def test_the_extra_pictures_of_a_phones_photo_are_not_frames():
    value = encoded(RGB, "MPO", save_all=True, append_images=[RGB.transpose(Image.Transpose.ROTATE_180)])
    assert Image.open(io.BytesIO(value)).n_frames == 2
    assert facts(value)["frames"] == 1
    assert np.array_equal(pixels(value), pixels(encoded(RGB, "JPEG")))


def test_one_bit_pictures_are_black_and_white():
    assert set(np.unique(pixels(SORTS["1 bit"], GRAY))) == {0, 255}


def test_the_first_frame_of_an_animation_is_used():
    assert facts(SORTS["animation"])["frames"] == 3
    assert np.array_equal(pixels(SORTS["animation"], GRAY)[..., 0], np.asarray(ANIMATION[0]))


def test_thousands_of_frames_take_little_time():
    frames = [Image.fromarray(noise(8, 8, seed=frame)) for frame in range(2)] * 1500
    long = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    started = time.process_time()
    assert facts(long)["frames"] == 3000
    assert time.process_time() - started < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_pictures_are_turned_upright(orientation, format):
    stored = noise(6, 9)
    seen = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    value = encoded(Image.fromarray(stored), format, exif=turned(orientation))
    fitted = image.fit([[value]], image.Options())
    assert (fitted["height"], fitted["width"]) == seen.shape
    assert np.array_equal(pixels(value, fitted)[..., 0], seen)


def test_broken_exif_is_ignored():
    value = encoded(RGB, exif=b"Exif\0\0" + b"\xff" * 40)
    assert np.array_equal(pixels(value), np.asarray(RGB))


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
    """A progressive JPEG whose last scan comes `extra` times more: as much work each time, for a hundred bytes."""
    value = encoded(Image.new("RGB", (400, 400)), "JPEG", progressive=True)
    return value[:-2] + value[value.rindex(b"\xff\xda") : -2] * extra + value[-2:]


def icon(inside):
    """Its directory says 16x16, whatever is inside."""
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
    assert pixels(large).shape == (6, 9, 3)  # fitted before there was such a bound


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


def test_gray_pictures_make_one_channel_and_a_constant_channel_is_unscaled():
    plain = encoded(Image.fromarray(np.full((4, 4), 7, np.uint8)))
    fitted = image.fit([[plain]], image.Options())
    assert (fitted["channels"], fitted["mean"], fitted["std"]) == (1, [7.0], [1.0])
    assert image.fit([[plain]], image.Options(channels=3))["mean"] == [7.0, 7.0, 7.0]
    assert image.fit([[plain, SORTS["rgb"]]], image.Options())["channels"] == 3


def test_fitting_without_pictures_is_an_error():
    with pytest.raises(ValueError, match="no training picture"):
        image.fit([], image.Options())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": 8}, "both height and width"),
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"bits": 7}, "bits must be between 8 and 31, not 7"),
        ({"max_side": 0}, "max_side must be between 1 and 4096, not 0"),
        ({"height": 8, "width": 5000}, "width must be between 1 and 4096, not 5000"),
    ],
)
def test_invalid_options_are_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        image.Options(**options)


def servers_python():
    """The interpreter that serves, with the server's numpy."""
    folders = [os.environ.get("MILLRACE_TRITON"), ROOT / ".venv-triton"]
    found = [Path(folder) / "bin" / "python" for folder in folders if folder]
    return next((python for python in found if python.exists()), None)


def test_the_servers_numpy_gives_the_same_bytes(tmp_path):
    python = servers_python()
    if python is None:
        pytest.skip("no environment of the server: neither MILLRACE_TRITON nor .venv-triton holds bin/python")
    values = list(SORTS.values())
    fitted = [image.fit([values], image.Options(channels=channels)) for channels in (1, 3)]
    for number, value in enumerate(values):
        (tmp_path / f"{number:02d}").write_bytes(value)
    program = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import numpy
from stages.schema.kinds import image
values = [path.read_bytes() for path in sorted(Path({str(tmp_path)!r}).iterdir())]
for fitted in {fitted!r}:
    assert image.fit([values], image.Options(channels=fitted["channels"])) == fitted
    sys.stdout.buffer.write(image.transform(values, fitted).tobytes())
facts = image.facts(values)
print(json.dumps({{name: column.tolist() for name, column in facts.items()}}), numpy.__version__, file=sys.stderr)
"""
    ran = subprocess.run([python, "-I", "-c", program], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stdout == b"".join(image.transform(values, each).tobytes() for each in fitted)
    theirs, version = ran.stderr.decode().strip().rsplit(" ", 1)
    assert json.loads(theirs) == {name: column.tolist() for name, column in image.facts(values).items()}
    assert int(version.split(".")[0]) < 2
