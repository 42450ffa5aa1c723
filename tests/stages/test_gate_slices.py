"""Slices in the gate stage: how the test rows are cut, and how each slice is judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.core.errors import UserError
from stages.evaluation.yardsticks import Yardsticks
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables.arrays import create_split
from tests.support.failing import failing
from tests.support.gating import ANSWERS, TEST_ROWS, make_stage, reasons


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Run the gate stage in this folder and return the verdict's bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return make_stage(tmp_path)


SMALL = {"min_rows": 2, "thresholds": {"accuracy": {"min": 0.6}}}


@pytest.mark.parametrize(
    ("by", "options", "expected"),
    [
        ("label", {}, {"/yes": (2, 0.5), "no": (2, 1.0)}),
        ("folder", {"min_rows": 3}, {"a": (2, None), "b": (1, None), "d": (1, None)}),
        ("image.brightness", {"bins": 2}, {"1 to 2": (3, 1.0), "50": (1, None)}),
        ("image.width", {}, {"8": (3, 1.0), "16": (1, None)}),
        ("hospital", {}, {"Ulm": (2, 1.0), "Bonn": (1, None), "(missing)": (1, None)}),
        ("age", {"bins": 2}, {"30 to 40": (2, 1.0), "50": (1, None), "(missing)": (1, None)}),
    ],
)
def test_the_stage_cuts_and_judges_slices(stage, by, options, expected, capsys):
    """Of the rows 0, 2, 3 and 5 of the table, only the last has a wrong prediction."""
    params.edit({"gate": {"slices": {by: SMALL | options}}})
    verdict = json.loads(stage(12.5))
    assert {each["value"]: each["rows"] for each in verdict["slices"]} == {name: n for name, (n, _) in expected.items()}
    sliced = {each["name"].rpartition(" is ")[2]: each for each in verdict["criteria"] if each["about"] == "slice"}
    for name, (rows, accuracy) in expected.items():
        assert sliced[name]["rows"] == rows
        assert sliced[name]["value"] == accuracy
        assert sliced[name]["holds"] == (accuracy is None or accuracy >= 0.6)
        assert ("are not judged" in sliced[name]["note"]) == (accuracy is None)
    assert verdict["verdict"] == ("refuse" if by == "label" else "pass")
    shown = capsys.readouterr().out
    assert ("accuracy where label is /yes" in shown) == (by == "label")


def test_one_slice_can_refuse_and_says_what_to_do(stage):
    params.edit({"gate": {"slices": {"label": SMALL}}})
    assert reasons(json.loads(stage(12.5))) == {
        "accuracy where label is /yes": "where label is /yes (2 test rows), accuracy is 0.5000, which is not at least"
        " 0.6: fix or add such rows, or change gate.slices.label"
    }


def test_a_slice_without_a_class_is_not_judged_by_it(stage):
    """All rows of folder a are of class no."""
    thresholds = {name: {"min": 0.9} for name in ("recall[/yes]", "recall[no]", "auroc", "f1_macro")}
    params.edit({"gate": {"slices": {"folder": {"min_rows": 2, "thresholds": thresholds}}}})
    verdict = json.loads(stage(12.5))
    assert reasons(verdict) == {}
    sliced = {each["name"]: each for each in verdict["criteria"] if each["about"] == "slice"}
    assert sliced["recall[no] where folder is a"]["value"] == sliced["f1_macro where folder is a"]["value"] == 1
    assert sliced["auroc where folder is a"]["bound"] == sliced["recall[/yes] where folder is a"]["bound"] == "defined"
    note = "recall[/yes] is not judged where folder is a: its 2 test rows do not define it"
    assert sliced["recall[/yes] where folder is a"]["note"] == note


def test_slices_of_the_champion_that_have_no_rows_now_are_noted(stage):
    params.edit(
        {"gate": {"slices": {"label": SMALL | {"thresholds": {"accuracy": {"min": 0.5}}}, "image.width": SMALL}}}
    )
    stage(12.5)
    before = json.loads(Path("verdict.json").read_text())["slices"]
    before += [{"by": "label", "value": "maybe", "rows": 9, "span": None}]
    before += [{"by": "image.width", "value": "9 to 15", "rows": 9, "span": [9.0, 15.0]}]
    before += [{"by": "town", "value": "Ulm", "rows": 9, "span": None}]
    Path("before.json").write_text(json.dumps({"slices": before}))
    verdict = json.loads(stage(12.5))
    assert reasons(verdict) == {}
    assert [each["note"] for each in verdict["criteria"] if each["rows"] == 0] == [
        "there is no test row where label is maybe, a slice that the champion was judged on",
        "there is no test row where image.width is 9 to 15, a slice that the champion was judged on",
    ]
    assert all(each["rows"] for each in verdict["slices"])


def test_a_slice_that_is_worse_than_the_champions_refuses(stage):
    """The champion is right on the last row and wrong on the second: as good on the whole."""
    theirs = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    np.savez("challenge/answers.npz", probabilities=theirs)
    Path("challenge/challenge.json").write_text(json.dumps(ANSWERS))
    params.edit({"gate": {"slices": {"label": {"min_rows": 2, "margins": {"accuracy": 0.3}}}}})
    failed = reasons(json.loads(stage(12.5)))
    assert list(failed) == ["against the champion: accuracy where label is /yes"]
    assert "where label is /yes (2 test rows), accuracy is worse by 0.5000 than the champion's" in failed.popitem()[1]


def test_an_unknown_slice_column_is_an_error_that_names_the_nearest(stage):
    params.edit({"gate": {"slices": {"image.height": SMALL}}})  # a fact of the data in params.yaml, not of this table
    with failing(UserError, "params-unknown-column", "gate.slices.image.height"):
        stage(12.5)


def test_slices_of_a_number_target(stage):
    fitted = {"mean": 0.0, "std": 1.0, "coverage": 0.9}
    Schema((), Column("opinion", "target_number", {}, fitted)).dump(Path("schema.json"))
    shutil.rmtree("arrays")
    truth = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    create_split(Path("arrays/test"), TEST_ROWS, truth, [])
    interval = np.concatenate([truth - 9, truth + 9], axis=1)
    ours = truth + np.array([[0.0], [0.1], [0.0], [2.0]], np.float32)
    np.savez("answers/answers.npz", value=ours, interval=interval)
    np.savez("answers/controls.npz", **{"labels shuffled": -truth})
    np.savez("challenge/answers.npz", value=truth + np.float32(1.5), interval=interval)
    Path("challenge/challenge.json").write_text(json.dumps(ANSWERS))
    Yardsticks({"constant": np.full((4, 1), 2.5, np.float32)}, "constant").save(Path("yardsticks.npz"))
    slices = {"label": {"min_rows": 2, "thresholds": {"mae": {"max": 0.5}}, "margins": {"rmse": 0.5}}}
    params.edit(
        {"gate": {"thresholds": {"rmse": {"max": 1.2}}, "margins": {"rmse": 0.1}, "slices": slices, "robustness": {}}}
    )
    verdict = json.loads(stage(12.5))
    assert list(reasons(verdict)) == ["mae where label is /yes"]
    sliced = {each["name"]: each["value"] for each in verdict["criteria"] if each["about"] == "slice"}
    assert sliced == {
        "mae where label is no": pytest.approx(0.05),
        "mae where label is /yes": pytest.approx(1.0),
        "against the champion: rmse where label is no": pytest.approx(1.5 - 0.1 / 2**0.5, abs=1e-5),
        "against the champion: rmse where label is /yes": pytest.approx(1.5 - 2**0.5, abs=1e-5),
    }
