"""Fitted values, arrays, the summary, and errors of prepare."""

from __future__ import annotations

import functools
import hashlib
import json

import numpy as np
import pytest

from stages.core.errors import UserError
from stages.schema import Schema
from stages.schema.kinds import image
from stages.tables import table
from stages.tables.arrays import SPLITS, open_split, read_summary
from tests.support.failing import failing
from tests.support.preparing import PATHS, many, official, row, run


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return functools.partial(run, tmp_path, monkeypatch)


def test_statistics_are_fitted_only_to_training_rows(stage):
    grays = {"train": 10, "val": 100, "test": 200}
    rows = [
        row(f"{split}{number}", str(number % 2), split, gray=gray)
        for split, gray in grays.items()
        for number in range(4)
    ]
    rows[0]["image"] = image.raw(np.full((3, 2), 30, np.uint8))
    fitted = Schema.load(stage(rows) / PATHS[3])
    assert fitted.features[0].fitted["mean"] == [15.0]
    assert fitted.target.fitted == {"labels": ["0", "1"], "counts": [2, 2], "spelling": ["number"]}


def test_arrays_are_the_encoded_raw_values(stage):
    here = stage(many())
    raw, labels = (table.column(here / PATHS[0], key) for key in ("image", "label"))
    schema = Schema.load(here / PATHS[3])
    for split in SPLITS:
        found = open_split(here / PATHS[2], split)
        (expected,) = schema.encode({"image": raw[found.rows]}).values()
        assert [block.tobytes() for block in found.blocks] == [expected.tobytes()]
        assert found.target.tolist() == [("cat", "dog").index(label) for label in labels[found.rows]]
        assert np.all(np.diff(found.rows) > 0)


def test_two_folders_hold_the_same_bytes(stage):
    one, two = (
        {path.relative_to(here): path.read_bytes() for path in sorted((here / "data").rglob("*")) if path.is_file()}
        for here in (stage(many(), folder="one"), stage(many(), folder="two"))
    )
    assert one == two
    assert len(one) == 4 + 3 * 3


def test_the_summary_has_the_hash_of_every_file(stage):
    here = stage(many())
    hashes = read_summary(here / PATHS[2])["sha256"]
    files = {"table": PATHS[0], "quarantine": PATHS[1], "schema": PATHS[3]}
    files |= {path.relative_to(PATHS[2]).as_posix(): path for path in PATHS[2].rglob("*.npy")}
    assert hashes == {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items()}


def test_the_counts_are_printed(stage, capsys):
    rows = official()
    stage([*rows, row("again", split="train", sample="test1")], rows[:2])
    assert capsys.readouterr().out == (
        "prepared 8 train, 10 val, 10 test; left out 2 quarantined, 1 copies of a later split\n"
    )


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_split_is_an_error(stage, split):
    rows = [each for each in official() if each["_split"] != split]
    with failing(UserError, "split-empty", split):
        stage(rows, val=0.0001, test=0.0001)


def test_an_unknown_label_of_an_official_test_row_is_an_error_that_names_the_row(stage):
    rows = official()
    rows += [row(f"odd{number}", "eel", "test") for number in range(5)]
    places = ("eel/odd0.png", "eel/odd1.png", "eel/odd2.png", "2 more")
    with failing(UserError, "data-invalid-value", "column label", *places):
        stage(rows, quarantined=rows[-5:])


def test_a_missing_label_of_an_official_test_row_is_an_error_that_names_the_row(stage):
    with failing(UserError, "data-invalid-value", "test split", "column label", "cat/odd.png"):
        stage([*official(), row("odd", split="test") | {"label": None}])


def test_a_value_that_its_kind_cannot_take_is_an_error_that_names_the_row(stage):
    broken = row("odd", split="test") | {"image": b"GIF89a"}
    with failing(UserError, "data-invalid-value", "test split", "cat/odd.png: image"):
        stage([*official(20), broken])


def test_values_that_cannot_be_fitted_are_an_error_that_names_the_column(stage):
    broken = row("odd", split="train") | {"image": b"GIF89a"}
    with failing(UserError, "data-not-fitted", "'image'"):
        stage([*official(), broken])


def test_a_single_class_is_an_error_that_names_it(stage):
    with failing(UserError, "data-not-fitted", "'label'", "cat"):
        stage([each | {"label": "cat"} for each in official()])


def test_an_error_leaves_no_arrays(stage, tmp_path):
    with failing(UserError, "data-invalid-value"):
        stage([*official(), row("odd", "eel", "test")])
    assert not list(tmp_path.glob("here/data/*arrays*"))


def test_the_summary_is_json_that_names_the_splits(stage):
    summary = json.loads((stage(official(4)) / PATHS[2] / "summary.json").read_text(encoding="utf-8"))
    assert summary["rows"] == {"train": 4, "val": 4, "test": 4}
