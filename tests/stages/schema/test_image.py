"""Pictures of many kinds, as real bytes: arrays, facts and fitted values."""

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
from PIL import Image, PngImagePlugin

from stages.gating import perturbations
from stages.schema.kinds import image
from tests.support.pictures import ANIMATION, COLOR, GRAY, RGB, SIZE, SORTS, encoded, facts, noise, pixels, turned
from tests.support.project import ROOT


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


@pytest.mark.parametrize(
    "value",
    [
        3.5,
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 7), np.uint8),
        *(np.zeros((2, 2), kind) for kind in (float, int, complex)),
    ],
)
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
    """A TIFF with packed samples, two in three bytes."""
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
    """Pillow raises an error for texts that unpack to more than a megabyte, as they may be decompression bombs."""
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
    """The server's Python interpreter, with its own numpy."""
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
