"""How often predictions differ: for changed inputs, through the real server, and from a champion's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stages.gating import robustness
from stages.schema import Column, Schema
from stages.settings.gate import Change

LABEL = Schema((), Column("label", "target_class", {}, {"labels": ["a", "b"], "counts": [1, 1]}))
PRICE = Schema((), Column("price", "target_number", {}, {"mean": 10.0, "std": 2.0, "coverage": 0.9}))


def labels(*codes):
    return {"probabilities": np.eye(2, dtype=np.float32)[list(codes)]}


def prices(*values):
    value = np.array(values, np.float32)[:, None]
    return {"value": value, "interval": value + np.array([-1, 1], np.float32)}


def changed(folder, schema, before, after, most, **bound):
    """The figures on one change, from the predictions before and after it."""
    np.savez(folder / "answers.npz", **before)
    np.savez(folder / "changed.npz", **{name: each[None] for name, each in after.items()})
    (folder / "changed.json").write_text(json.dumps({"changes": [{"key": "x", "name": "f", "what": "f of x"}]}))
    return robustness.robustness(folder, schema, {"x": {"f": Change(max_changed=most, **bound)}}, 0.05)


def test_a_predicted_class_that_changes_is_counted(tmp_path):
    (figure,) = changed(tmp_path, LABEL, labels(0, 0, 1, 1), labels(0, 1, 1, 0), 0.25)
    assert (figure.about, figure.name, figure.value, figure.most) == ("robustness", "f of x", 0.5, 0.25)
    assert figure.reason == "f of x changes 2 of 4 answers; gate.robustness.x.f.max_changed allows a share of 0.25"


def test_a_predicted_number_that_leaves_its_interval_is_counted(tmp_path):
    after = prices(5.5, 5.1, 9, 8)
    after["interval"] += np.array([-9, 9], np.float32)  # the interval before the change counts
    (figure,) = changed(tmp_path, PRICE, prices(5, 6, 7, 8), after, 0.0)
    assert figure.value == 0.25


@pytest.mark.parametrize(
    ("schema", "before", "after", "mean"),
    [(PRICE, prices(5, 6), prices(5.2, 5.8), 0.1), (LABEL, labels(0, 1), labels(0, 0), 0.5)],
)
def test_max_moved_bounds_the_mean_change(tmp_path, schema, before, after, mean):
    _, figure = changed(tmp_path, schema, before, after, 1.0, max_moved=0.05)
    assert (figure.name, figure.value, figure.most) == ("f of x: moved", pytest.approx(mean), 0.05)
    key = "gate.robustness.x.f.max_moved"
    assert figure.reason == f"f of x moves answers by {mean:g} on average; {key} allows 0.05"


@pytest.mark.parametrize("samples", [1, 20, 381])
def test_the_interval_is_exact(tmp_path, samples):
    """If none or all of n predictions change, the other end is known in closed form: 0.05 ** (1 / n)."""
    zeros, ones = [0] * samples, [1] * samples
    (none,) = changed(tmp_path, LABEL, labels(*zeros), labels(*zeros), 0.0)
    (all_,) = changed(tmp_path, LABEL, labels(*zeros), labels(*ones), 0.0)
    assert (none.value, none.low, all_.value, all_.high) == (0, 0, 1, 1)
    assert none.high == pytest.approx(1 - 0.05 ** (1 / samples)) and all_.low == pytest.approx(1 - none.high)


def test_disagreement_needs_the_answers_of_a_champion(tmp_path):
    ours, theirs = tmp_path / "answers", tmp_path / "challenge"
    ours.mkdir()
    theirs.mkdir()
    np.savez(ours / "answers.npz", **labels(0, 0, 1))
    np.savez(theirs / "answers.npz")
    assert robustness.disagreement(ours, theirs, LABEL, 0.1, 0.05) == []
    np.savez(theirs / "answers.npz", **labels(0, 1, 1))
    (figure,) = robustness.disagreement(ours, theirs, LABEL, 0.1, 0.05)
    assert (figure.name, round(figure.value, 4), figure.most) == ("against the champion: disagreement", 0.3333, 0.1)
    assert figure.reason == "1 of 3 answers differ from the champion's; gate.max_disagreement allows a share of 0.1"


def test_a_model_without_a_declared_invariance_is_refused(done):
    done.params(
        gate={"robustness": {"image": {"flip": {"max_changed": 0.0}, "noise": {"by": 0.05, "max_changed": 0.05}}}}
    )
    output = done.millrace("run", code=3)
    reports = done.folder / "reports"
    verdict = json.loads((reports / "verdict.json").read_text())
    before, changed = (np.load(reports / "answers" / f"{name}.npz")["probabilities"] for name in ("answers", "changed"))
    different = (before.argmax(1) != changed[0].argmax(1)).sum()
    assert different > 100
    reason = (
        f"flip of image changes {different} of 381 answers; gate.robustness.image.flip.max_changed allows a share of 0"
    )
    assert [each["reason"] for each in verdict["criteria"] if not each["holds"]] == [reason]
    assert {each["outcome"] for each in verdict["controls"]} == {"refused", "no difference"}
    assert f"refused: {reason}" in output
    page = (reports / "index.html").read_text(encoding="utf-8")
    assert reason in page.partition('id="robustness"')[2]
