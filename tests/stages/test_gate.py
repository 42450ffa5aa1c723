"""The gate stage: it judges the served answers and writes the verdict, which no time enters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stages import gate
from stages.settings import params
from stages.tables import distributions
from stages.tables.distributions import of_words
from tests.support.gating import NO_CHAMPION, make_stage, reasons


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Run the gate stage in this folder and return the verdict's bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return make_stage(tmp_path)


def test_the_stage_judges_the_served_answers(stage, capsys):
    verdict = json.loads(stage(12.5))
    assert reasons(verdict) == {}
    assert [(criterion["name"], criterion["value"]) for criterion in verdict["criteria"][:2]] == [
        ("accuracy", 0.75),
        ("recall[no]", 1.0),
    ]
    shown = capsys.readouterr().out
    assert "PASS  0123456789ab" in shown
    assert "12.5" in shown
    assert "recall[no]" in shown  # neither a style nor its end
    assert "recall[/yes]" in shown


def test_the_stage_judges_the_controls(stage):
    controls = {control["name"]: control for control in json.loads(stage(12.5))["controls"]}
    assert {name: control["outcome"] for name, control in controls.items()} == {
        "labels shuffled": "refused",
        "slow": "refused",
        "the constant answer": "not applicable",
        "itself": "no difference",
    }
    assert controls["labels shuffled"]["scored"]["accuracy"] == 0.25


def test_the_stage_judges_robustness(stage):
    criteria = json.loads(stage(12.5))["criteria"]
    values = {each["name"]: each["value"] for each in criteria if each["about"] == "robustness"}
    assert values == {"flip of image": 0.0, "shift of image by 0.1": 0.5}
    tighter = {"image": {"shift": {"by": 0.1, "max_changed": 0.4}}}
    assert reasons(json.loads(stage(12.5, robustness=tighter))) == {
        "shift of image by 0.1": "shift of image by 0.1 changes 2 of 4 answers; gate.robustness.image.shift.max_changed"
        " allows a share of 0.4"
    }


def test_the_stage_writes_the_same_bytes_for_two_latencies_that_pass(stage):
    assert stage(12.5) == stage(99.0)


def test_the_stage_compares_latency_and_size_with_the_champion(stage):
    assert reasons(json.loads(stage(12.5, ratios=[1.05] * 20))) == {}
    slower = stage(12.5, ratios=[2.0] * 20, max_larger=1.4)
    larger = "what is served is 1.50 times as large as the champion's; gate.max_larger allows 1.4"
    assert reasons(json.loads(slower)) == {
        "latency over the champion's": "timed in turn with the champion, it takes longer than gate.max_slower allows",
        "size over the champion's": larger,
    }
    assert stage(12.5, ratios=[2.3] * 20) == slower


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [
        ([1.0] * 12 + [9.0] * 8, "not judged"),
        ([1.0] * 17 + [9.0] * 3, "holds"),
        ([9.0] * 8 + [1.0] * 12, "not judged"),
        ([9.0] * 15 + [1.0] * 5, "refused"),
        ([1.5] * 20, "holds"),
        ([9.0] * 3, "not judged"),
        ([], "not judged"),
    ],
)
def test_latency_ratios_that_are_too_noisy_are_not_judged(stage, ratios, outcome):
    criteria = json.loads(stage(12.5, ratios))["criteria"]
    (latency,) = (each for each in criteria if each["name"] == "latency over the champion's")
    assert gate.outcome(latency)[0] == outcome and latency["value"] is None and latency["interval"] is None


def test_a_refusal_is_written_and_shown(stage, capsys):
    assert list(reasons(json.loads(stage(101.0)))) == ["latency p99"]
    shown = capsys.readouterr().out
    assert "REFUSE  0123456789ab" in shown
    assert "refused: one sample takes longer than gate.p99_ms allows" in shown


def test_data_that_drifted_from_the_champions_are_refused_or_left_to_a_person(stage, capsys):
    new, old = (of_words([("cat", cats), ("cow", 500 - cats // 2), ("dog", 500 - cats // 2)]) for cats in (50, 300))
    for path, train, test in ((Path("new.json"), new, new), (Path("old.json"), old, old)):
        distributions.dump({"label": {"train": train, "test": test}}, path)
    assert reasons(json.loads(stage(12.5))) == {}  # there is no champion to compare with
    Path("challenge/challenge.json").write_text(json.dumps({**NO_CHAMPION, "state": "incompatible"}))
    failed = reasons(json.loads(stage(12.5)))
    assert list(failed) == ["label: as the champion's"]
    assert failed["label: as the champion's"].startswith(
        "label is not as in the champion's training rows: share of 'cat' 0.3 -> 0.05. That is a distance of 0.2"
    )
    shown = capsys.readouterr().out
    assert "label: as the champion's" in shown and "distances between columns of data: 1 hold, the largest 0" in shown
    params.edit({"gate": {"approval": ["data"]}})
    assert json.loads(stage(12.5))["verdict"] == "needs a person"
    params.merge({"gate": {"drift": {"max_distance": 0.25}}})
    assert json.loads(stage(12.5))["verdict"] == "pass"


def test_a_control_is_not_refused_for_a_class_that_its_rows_lack(stage, monkeypatch):
    """Otherwise every bound would seem tight enough."""
    monkeypatch.setattr(gate, "some_rows", lambda count: np.arange(2))  # both of class no
    np.savez("answers/controls.npz", **{"labels shuffled": np.array([[0.1, 0.9], [0.2, 0.8]], np.float32)})
    params.edit({"gate": {"thresholds": {"recall[/yes]": {"min": 0.1}}}})
    verdict = json.loads(stage(12.5))
    assert next(each["outcome"] for each in verdict["controls"] if each["name"] == "labels shuffled") == "passed"
    assert verdict["verdict"] == "refuse"
