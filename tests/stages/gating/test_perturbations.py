"""Perturbations of raw values: what each does, by how much, that it is reproducible, and which columns it changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stages.gating import perturbations
from stages.gating.perturbations import PlannedPerturbation, chosen
from stages.schema import Column, Schema, kind
from stages.schema.kinds import image
from stages.settings import sections

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 12, 20, 3), np.uint8)
PICTURES = [image.raw(pixels) for pixels in PIXELS]
NUMBERS = [0.5, -2.0, None, float("nan"), 3e38]
TEXTS = ["It looks ROUND to me.", "a", "", None, "größer, naïve ☂ ß"]
VALUES = {"image": PICTURES, "number": NUMBERS, "text": TEXTS, "category": ["ink", None], "timestamp": ["2024-12-31"]}
FITTED = {"image": {"channels": 3}, "number": {"std": 5.0}}
EVERY = [(name, change) for name in sections.feature_kinds() for change in perturbations.of(name)]


def changed(name, change, values, by=0.0, first=0, fitted=None):
    """Values [n] of a kind after a change, at the table's rows from `first` on."""
    column = Column("it", name, {}, fitted or FITTED.get(name, {}))
    rows = range(first, first + len(values))
    return list(PlannedPerturbation("it", change, by, (column,)).apply({"it": values}, rows)["it"])


def pixels(values):
    """float64 [n, H, W, C] or [n, H, W]."""
    return np.array([np.asarray(Image.open(io.BytesIO(value)), np.float64) for value in values])


@pytest.mark.parametrize(("name", "change"), EVERY)
def test_a_change_of_a_row_does_not_depend_on_other_rows_and_keeps_its_kind(name, change):
    by = perturbations.of(name)[change].most / 2
    values = VALUES[name]
    whole = changed(name, change, values, by)
    alone = [changed(name, change, [value], by, first=row)[0] for row, value in enumerate(values)]
    assert list(map(repr, whole)) == list(map(repr, alone))
    stored = [kind(name).raw(value) for value in whole]
    assert all(value is None or isinstance(value, (str, bytes, float)) for value in stored)
    assert changed(name, change, values * 20, by) != values * 20


def test_a_picture_is_mirrored():
    assert (pixels(changed("image", "flip", PICTURES)) == PIXELS[:, :, ::-1]).all()
    assert (pixels(changed("image", "vflip", PICTURES)) == PIXELS[:, ::-1]).all()


def test_a_picture_is_shifted_by_a_share_of_its_sides_and_its_edge_is_repeated():
    gray = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    moved = pixels(changed("image", "shift", [image.raw(gray)] * 40, 0.25, fitted={"channels": 1}))
    wide = np.pad(gray.astype(np.float64), ((3, 3), (5, 5)), mode="edge")
    ends = {wide[y : y + 12, x : x + 20].tobytes() for y in (0, 6) for x in (0, 10)}
    assert {picture.tobytes() for picture in moved} == ends


def test_a_shift_by_part_of_a_pixel_interpolates():
    bar = np.zeros((8, 8), np.uint8)
    bar[:, 4] = 200
    moved = pixels(changed("image", "shift", [image.raw(bar)] * 9, 0.25 / 8, fitted={"channels": 1}))
    assert {tuple(row) for picture in moved for row in picture} == {
        (0, 0, 0, 0, 150, 50, 0, 0),
        (0, 0, 0, 50, 150, 0, 0, 0),
    }


def test_brightness_and_noise_are_shares_of_full_white():
    gray = [image.raw(np.full((30, 30), 100, np.uint8))] * 30
    light = pixels(changed("image", "brightness", gray, 0.2, fitted={"channels": 1}))
    assert set(np.unique(light)) == {49, 151}
    noise = pixels(changed("image", "noise", gray, 0.1, fitted={"channels": 1})) - 100
    assert abs(noise.mean()) < 0.5 and 25 < noise.std() < 26
    assert np.abs(np.corrcoef(noise.reshape(30, -1)) - np.eye(30)).max() < 0.2  # each picture has its own


def test_a_picture_is_turned_upright_before_it_is_changed():
    lying = Image.fromarray(PIXELS[0])
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(turned, format="PNG", exif=exif)
    (flipped,) = pixels(changed("image", "flip", [turned.getvalue()]))
    assert (flipped == np.rot90(PIXELS[0], -1)[:, ::-1]).all()


def test_noise_on_a_number_is_a_share_of_its_standard_deviation_in_training():
    noise = np.array(changed("number", "noise", [7.0] * 4000, 0.1)) - 7
    assert abs(noise.mean()) < 0.05 and 0.48 < noise.std() < 0.52
    other = Column("other", "number", {}, FITTED["number"])
    both = (Column("it", "number", {}, FITTED["number"]), other)
    raw = PlannedPerturbation("number", "noise", 0.1, both).apply({"it": [7.0] * 9, "other": [7.0] * 9}, range(9))
    assert not set(raw["it"]) & set(raw["other"])


@pytest.mark.parametrize("name", ["number", "text", "category", "timestamp"])
def test_optional_kinds_can_be_missing_in_a_share_of_rows(name):
    value = VALUES[name][0]
    values = changed(name, "missing", [value] * 4000, 0.25)
    assert set(values) == {value, None} and 900 < values.count(None) < 1100
    assert "missing" not in perturbations.of("image")


def test_texts_get_capitals_blanks_and_typos():
    assert changed("text", "case", TEXTS) == ["IT LOOKS ROUND TO ME.", "A", "", None, "GRÖßER, NAÏVE ☂ ß"]
    assert changed("text", "blanks", TEXTS)[0] == " It  looks  ROUND  to  me. "
    (slipped,) = changed("text", "typos", ["It looks ROUND to me."], 1.0)
    assert [sorted(word) for word in slipped.split()] == [sorted(word) for word in TEXTS[0].split()]
    assert all(a != b or len(set(a.strip("."))) < 3 for a, b in zip(slipped.split(), TEXTS[0].split(), strict=True))
    words = " ".join(changed("text", "typos", ["ab"] * 4000, 0.25))
    assert 900 < words.count("ba") < 1100


def test_an_entry_of_a_column_replaces_that_of_its_kind():
    schema = Schema(
        (Column("a", "number"), Column("b", "number"), Column("c", "category")), Column("y", "target_number")
    )
    listed = {"number": {"noise": 0.1, "missing": 0.2}, "b": {"noise": 0.3}, "image": {"flip": 0.0}}
    planned = [(str(change), [column.name for column in change.columns]) for change in chosen(schema, listed)]
    assert planned == [
        ("noise of number by 0.1", ["a"]),
        ("missing of number by 0.2", ["a"]),
        ("noise of b by 0.3", ["b"]),
    ]
