"""The verdict as a function: what passes, each way to be refused with its reason, and that times leave no trace."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from stages import gate
from stages.core.errors import UserError
from stages.gating import metrics as estimates
from stages.gating.verdict import ADVICE, NO_DIFFERENCE, Difference, Estimate, Evidence, OfSlices, Policy, Tried, judge
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables import distributions
from stages.tables.arrays import create_split
from stages.tables.distributions import of_words
from tests.support.project import ROOT

MEASURED = {"accuracy": 0.97, "f1_macro": 0.96, "calibration_error": 0.02, "recall[3]": 0.9, "recall[8]": 0.7}
BOUNDS = {"accuracy": {"min": 0.95, "max": None}, "calibration_error": {"min": None, "max": 0.1}}
CHECKS = [
    {"name": "batches of 64", "holds": True, "max_delta": 1e-7},
    {"name": "counted", "holds": True, "max_delta": None},
]

CHANGES = [
    {"key": "image", "name": "flip", "what": "flip of image"},
    {"key": "image", "name": "shift", "what": "shift of image by 0.1"},
]


def at_least(bound, metric="accuracy"):
    return {metric: {"min": bound, "max": None}}


NONE = {"champion": None, "state": "none", "outcome": "no champion yet"}
ANSWERS = {"champion": "ba9876543210", "state": "answers", "outcome": "ba9876543210 answered 400 test samples"}
LOST = {"champion": "ba9876543210", "state": "lost", "outcome": "ba9876543210 cannot be asked: `dvc pull`"}
MARGINS = {"accuracy": 0.02}


def verdict(
    measured=MEASURED,
    bounds=BOUNDS,
    checks=CHECKS,
    p99_ms=5.0,
    p99_bound_ms=100.0,
    champion=NONE,
    differences=None,
    margins=MARGINS,
    level=0.05,
    controls=(),
    approval=(),
):
    estimates = {name: Estimate(value) for name, value in measured.items()}
    evidence = Evidence("0123456789ab", estimates, checks, p99_ms, champion, differences or {}, controls=controls)
    return judge(evidence, Policy(bounds, margins, level, p99_bound_ms, approval))


def reasons(said):
    """Why it is refused, by criterion; and that a refusal always has one."""
    found = {criterion["name"]: criterion["reason"] for criterion in said["criteria"] if not criterion["holds"]}
    assert said["verdict"] == ("refuse" if found else "pass")
    assert all(found.values())
    return found


def test_all_that_holds_passes():
    said = verdict()
    assert reasons(said) == {}
    assert [(each["name"], each["bound"], each["value"]) for each in said["criteria"]] == [
        ("accuracy", "at least 0.95", 0.97),
        ("calibration_error", "at most 0.1", 0.02),
        ("served: batches of 64", "as the checkpoint", 1e-7),
        ("served: counted", "as the checkpoint", None),
        ("latency p99", "at most 100 ms", None),
    ]
    assert (said["release"], said["champion"]) == ("0123456789ab", "no champion yet")


@pytest.mark.parametrize("edge", [{"min": 0.97, "max": None}, {"min": None, "max": 0.97}, {"min": 0.97, "max": 0.97}])
def test_a_bound_itself_is_within(edge):
    assert reasons(verdict(bounds={"accuracy": edge})) == {}


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ({"min": 0.98, "max": None}, "accuracy is 0.9700, which is not at least 0.98"),
        ({"min": None, "max": 0.9}, "accuracy is 0.9700, which is not at most 0.9"),
        ({"min": 0.5, "max": 0.6}, "accuracy is 0.9700, which is not at least 0.5 and at most 0.6"),
    ],
)
def test_a_metric_out_of_bounds_refuses(bound, reason):
    assert reasons(verdict(bounds={"accuracy": bound})) == {"accuracy": reason + ADVICE}


def test_every_reason_is_told_not_the_first_alone():
    found = reasons(verdict(bounds=at_least(0.99) | at_least(0.99, "f1_macro"), p99_ms=1e6))
    assert list(found) == ["accuracy", "f1_macro", "latency p99"]


def test_a_metric_of_one_label():
    assert reasons(verdict(bounds=at_least(0.8, "recall[3]"))) == {}
    assert reasons(verdict(bounds=at_least(0.8, "recall[8]"))) == {
        "recall[8]": f"recall[8] is 0.7000, which is not at least 0.8{ADVICE}"
    }


@pytest.mark.parametrize(
    ("metric", "nearest"), [("acuracy", "accuracy"), ("f1-macro", "f1_macro"), ("recall[33]", "recall[3]")]
)
def test_an_unknown_metric_refuses_and_names_the_nearest(metric, nearest):
    reason = f"there is no metric {metric!r}: did you mean '{nearest}'?"
    assert reasons(verdict(bounds=at_least(0.0, metric))) == {metric: reason}


def test_an_unknown_metric_unlike_any_names_all():
    reason = reasons(verdict(measured={"loss": 0.1, "speed": 2.0}, bounds=at_least(0.0, "zzz")))["zzz"]
    assert reason == "there is no metric 'zzz': there is loss, speed"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", [{"min": 0.0, "max": None}, {"min": None, "max": 1.0}])
def test_a_value_that_is_no_number_refuses(value, bound):
    said = verdict(measured={"accuracy": value}, bounds={"accuracy": bound})
    assert list(reasons(said)) == ["accuracy"]
    json.dumps(said, allow_nan=False)


def test_without_thresholds_nothing_passes():
    assert reasons(verdict(bounds={})) == {
        "thresholds": "gate.thresholds in params.yaml is empty: nothing could be refused"
    }


def test_answers_unlike_the_checkpoints_refuse():
    checks = [*CHECKS, {"name": "batches of 1", "holds": False, "max_delta": 0.3}]
    said = verdict(checks=checks)
    assert reasons(said) == {
        "served: batches of 1": "the served answers are not the checkpoint's: parity.json tells by how much"
    }
    assert {"name": "served: batches of 1", "value": 0.3}.items() <= said["criteria"][4].items()


def test_what_misses_a_bound_by_little_is_told_apart_from_it():
    said = reasons(verdict({"accuracy": 0.949997}))["accuracy"]
    assert said.startswith("accuracy is 0.949997, which is not at least 0.95:")


def test_what_no_figure_tells_is_told_by_its_name():
    said = reasons(verdict(checks=[{"name": "Triton counted 4 samples", "holds": False, "max_delta": None}]))
    assert list(said.values()) == ["this does not hold of the served answers: Triton counted 4 samples"]


def test_answers_held_against_nothing_refuse():
    assert reasons(verdict(checks=[])) == {"served": "no answer was held against it"}


@pytest.mark.parametrize("p99_ms", [100.1, math.inf, math.nan])
def test_slow_answers_refuse(p99_ms):
    slow = "one sample takes longer than gate.p99_ms allows: train a smaller network, or raise it"
    assert reasons(verdict(p99_ms=p99_ms)) == {"latency p99": slow}


def test_the_page_on_the_gate_names_every_key():
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    keys = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page.partition("verdict.json")[2], re.MULTILINE))
    )
    said = verdict()
    assert set(keys) == said.keys() | said["criteria"][0].keys()
    assert f"of this schema: {said['version']}" in page


def test_no_time_is_in_the_verdict():
    """Equal outcomes are equal bytes, on a fast machine as on a slow one."""
    fast, faster = (json.dumps(verdict(p99_ms=ms)) for ms in (87.654, 3.21))
    slow, slower = (json.dumps(verdict(p99_ms=ms)) for ms in (187.654, 1e9))
    assert fast == faster
    assert slow == slower
    assert "187" not in slow
    assert "87.6" not in fast


def test_worse_is_never_better():
    """Over a grid of bounds, no smaller accuracy, larger error or longer time turns a refusal into a pass."""
    grid = [0.0, 0.5, 0.9499999, 0.95, 0.9500001, 1.0]

    def passes(accuracy, error, p99_ms, bound):
        bounds = at_least(bound) | {"calibration_error": {"min": None, "max": bound}}
        said = verdict(
            {"accuracy": accuracy, "calibration_error": error}, bounds, p99_ms=p99_ms, p99_bound_ms=bound + 1
        )
        return said["verdict"] == "pass"

    for bound in grid:
        assert [passes(value, 0.0, 1.0, bound) for value in grid] == [value >= bound for value in grid]
        assert [passes(1.0, value, 1.0, bound) for value in grid] == [value <= bound for value in grid]
        assert [passes(1.0, 0.0, value + 1, bound) for value in grid] == [value <= bound for value in grid]


def compared(value, low, error=0.005):
    said = verdict(champion=ANSWERS, differences={"accuracy": Difference(value, low, error, 400)})
    return said["criteria"][-1], reasons(said)


def test_no_worse_than_the_champion_passes():
    criterion, found = compared(-0.005, -0.013)
    assert found == {} and criterion["interval"] == (-0.013, None) and criterion["note"] == ""


def test_possibly_too_much_worse_than_the_champion_refuses():
    _, found = compared(-0.015, -0.024)
    assert found == {
        "against the champion: accuracy": "accuracy is worse by 0.0150 than the champion's, and may be by 0.0240;"
        " gate.margins allows 0.02"
    }


def test_too_few_samples_say_how_many_would_do_and_judge_by_the_value():
    criterion, found = compared(-0.015, -0.06, error=0.02)
    assert found == {}
    assert criterion["note"].startswith("400 test samples do not tell a margin of 0.02: about 2,474 samples")
    _, found = compared(-0.021, -0.06, error=0.02)
    assert "worse by 0.0210" in found["against the champion: accuracy"]


@pytest.mark.parametrize("margins", [MARGINS, {}])
def test_a_lost_champion_refuses(margins):
    assert reasons(verdict(champion=LOST, margins=margins)) == {"against the champion: answers": LOST["outcome"]}


@pytest.mark.parametrize("state", ["none", "itself", "incompatible"])
def test_a_champion_that_cannot_be_compared_refuses_nothing(state):
    said = verdict(champion={"champion": "x", "state": state, "outcome": "a sentence"})
    assert reasons(said) == {} and said["champion"] == "a sentence"


def test_a_difference_that_nobody_could_measure_refuses():
    assert list(reasons(verdict(champion=ANSWERS))) == ["against the champion: accuracy"]
    assert list(compared(math.nan, math.nan)[1]) == ["against the champion: accuracy"]


@pytest.mark.parametrize("approval", [["accuracy"], ["threshold"], ["threshold", "latency"]])
def test_what_is_left_to_a_person_needs_one(approval):
    said = verdict(bounds=at_least(0.98), approval=approval)
    assert said["verdict"] == "needs a person"
    assert [each["name"] for each in said["criteria"] if not each["holds"]] == ["accuracy"]
    assert verdict(bounds=at_least(0.98), approval=approval, checks=[])["verdict"] == "refuse"
    assert verdict(approval=approval)["verdict"] == "pass"
    assert verdict(bounds={}, approval=approval)["verdict"] == "refuse"


def tried(expected, what, **evidence):
    """A control of which this is known beside what holds."""
    measured = {name: Estimate(value) for name, value in MEASURED.items()}
    known = {"measured": measured, "checks": CHECKS, "p99_ms": 5.0, "champion": NONE} | evidence
    return Tried("bad", what, expected, Evidence("0123456789ab", **known))


SHUFFLED = tried("threshold", "a model with its labels shuffled", measured={"accuracy": Estimate(0.0945)})
SLOW = tried("latency", "a model that takes 200 ms to answer", p99_ms=201.0)
REPEATED = tried("parity", "a model that repeats itself", checks=[{"name": "x", "holds": False, "max_delta": 0.5}])


def test_controls_that_are_refused_hold_and_tell_what_they_scored():
    said = verdict(controls=[SHUFFLED, REPEATED, SLOW], bounds=at_least(0.95))
    assert reasons(said) == {}
    assert [(each["outcome"], each["scored"]) for each in said["controls"]] == [
        ("refused", {"accuracy": 0.0945}),
        ("refused", {"served: x": 0.5}),
        ("refused", {"latency p99": None}),
    ]
    assert [each["bound"] for each in said["criteria"][-3:]] == [
        *("refused by threshold", "refused by parity", "refused by latency")
    ]


@pytest.mark.parametrize(
    ("control", "gate", "reason"),
    [
        (
            SHUFFLED,
            {"bounds": at_least(0.05)},
            "accuracy: {min: 0.05} would pass a model with its labels shuffled (accuracy 0.0945): raise it, or bound"
            " another metric too",
        ),
        (
            tried("threshold", "a bad model", measured={"accuracy": Estimate(0.5), "rmse": Estimate(9.0)}),
            {"bounds": at_least(0.05) | {"rmse": {"min": None, "max": 10.0}}, "measured": MEASURED | {"rmse": 1.0}},
            "accuracy: {min: 0.05} and rmse: {max: 10} would pass a bad model (accuracy 0.5000, rmse 9.0000): tighten"
            " one, or bound another metric too",
        ),
        (
            SLOW,
            {"p99_bound_ms": 1e6},
            "gate.p99_ms: 1e+06 would pass a model that takes 200 ms to answer: lower it",
        ),
        (
            tried("parity", "a model that repeats itself"),
            {},
            "nothing tells a model that repeats itself from the checkpoint: all answers are alike, or the comparison is"
            " wrong",
        ),
    ],
)
def test_a_control_that_passes_refuses_and_says_what_to_do(control, gate, reason):
    said = verdict(controls=[control], **gate)
    assert reasons(said) == {"control: bad": reason}
    assert said["controls"][0]["outcome"] == "passed"


def test_a_control_that_is_refused_for_another_reason_refuses():
    control = tried("threshold", "a bad model", p99_ms=1e6)
    said = verdict(controls=[control], bounds=at_least(0.9))
    assert said["controls"][0]["outcome"] == "another reason"
    assert "it is refused for another reason alone: one sample takes longer than" in reasons(said)["control: bad"]


def test_a_control_that_cannot_be_is_said_to_be_not_applicable():
    batch = Tried("one row repeated", "a model", "parity", None, "no request holds more than one row")
    said = verdict(controls=[batch, SHUFFLED], bounds={})
    assert list(reasons(said)) == ["thresholds"]
    assert [(each["outcome"], each["told"]) for each in said["controls"]] == [
        ("not applicable", "no request holds more than one row"),
        ("not applicable", "gate.thresholds is empty"),
    ]
    note = "control: one row repeated: not applicable, no request holds more than one row"
    assert said["criteria"][-2]["note"] == note


@pytest.mark.parametrize(
    ("value", "low", "holds"), [(0.0, -0.01, True), (0.01, -0.01, False), (0.0, 0.001, False), (0.0, -0.03, False)]
)
def test_the_candidate_is_not_better_than_itself(value, low, holds):
    known = {"champion": ANSWERS, "differences": {"accuracy": Difference(value, low, 0.0, 400)}}
    said = verdict(controls=[tried(NO_DIFFERENCE, "the candidate", **known)])
    assert bool(reasons(said)) != holds
    assert said["controls"][0]["outcome"] == ("no difference" if holds else "a difference")


def test_few_samples_are_trusted_no_further_than_they_tell():
    """Of nine that are all right, the bootstrap has nothing else to draw."""
    target = Schema((), Column("said", "target_class", {}, {"labels": ["no", "yes"], "counts": [9, 9]}))
    truth = np.arange(9) % 2
    measured, _ = estimates.measure(target, truth, np.eye(2, dtype=np.float32)[truth], None, {"f1_macro"}, (), 0.05)
    assert (measured["f1_macro"].value, measured["f1_macro"].high) == (1, 1)
    assert measured["f1_macro"].low == pytest.approx(1 - 1.6448536**2 / 9)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Runs the stage on two labels' worth of served answers, given the p99; what it wrote, as bytes."""
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    thresholds = {"accuracy": {"min": 0.7}, "recall[no]": {"min": 0.9}, "recall[/yes]": {"min": 0.1}}
    robustness = {"image": {"flip": {"max_changed": 0.0}, "shift": {"by": 0.1, "max_changed": 0.5}}}
    asked = {"thresholds": thresholds, "p99_ms": 100.0, "slices": {}, "robustness": robustness}
    params.edit({"gate": asked, "schema": {"keep": ["hospital", "age"]}})
    answers, challenge, times, profile, released, arrays, schema, table, before, out = map(
        Path,
        (
            *("answers", "challenge", "times.json", "new.json", "old.json", "arrays", "schema.json", "table.parquet"),
            *("before.json", "verdict.json"),
        ),
    )
    for path in (profile, released):
        path.write_text("{}")
    Schema((), Column("said", "target_class", {}, {"labels": ["no", "/yes"], "counts": [2, 2]})).dump(schema)
    create_split(arrays / "test", np.array([0, 2, 3, 5]), np.array([0, 0, 1, 1]), [])
    columns = {
        "_source": ["a/0", "b/1", "a/1", "b/3", "b/4", "c/d/2"],
        "label": ["no", "x", "no", "/yes", "x", "/yes"],
        "image.brightness": [1.0, 9.0, 2.0, 2.0, 9.0, 50.0],
        "image.width": [8, 9, 8, 8, 9, 16],
        "hospital": ["Ulm", None, "Bonn", "Ulm", None, None],
        "age": ["30", "1", "40", "50", "1", "?"],
    }
    parquet.write_table(pa.table(columns), table)
    before.write_text("{}")
    answers.mkdir()
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    np.savez(answers / "answers.npz", probabilities=probabilities)
    (answers / "parity.json").write_text(json.dumps({"release": "0123456789ab", "samples": 4, "checks": CHECKS}))
    shuffled = {"name": "labels shuffled", "what": "a model", "expected": "threshold", "inapplicable": ""}
    slow = {"name": "slow", "what": "a model", "expected": "latency", "inapplicable": "", "evidence": {"p99_ms": 201.0}}
    (answers / "controls.json").write_text(json.dumps({"controls": [shuffled | {"evidence": {}}]}))
    np.savez(answers / "controls.npz", **{"labels shuffled": probabilities[:, ::-1]})
    (answers / "changed.json").write_text(json.dumps({"changes": CHANGES}))
    np.savez(answers / "changed.npz", probabilities=np.array([probabilities, probabilities[::-1]]))
    challenge.mkdir()
    (challenge / "challenge.json").write_text(json.dumps(NONE))
    np.savez(challenge / "answers.npz")

    def run(p99_ms, ratios=None, **said):
        params.edit({"gate": said})
        other = None if ratios is None else {"bytes": 1000, "ratios": ratios}
        timed = {"one_client": {"p99_ms": p99_ms}, "slow": slow, "bytes": 1500, "champion": other}
        times.write_text(json.dumps(timed))
        gate.main(answers, challenge, times, profile, released, arrays, schema, table, before, out)
        return out.read_bytes()

    return run


def test_the_stage_judges_what_was_served(stage, capsys):
    said = json.loads(stage(12.5))
    assert reasons(said) == {}
    assert [(each["name"], each["value"]) for each in said["criteria"][:2]] == [("accuracy", 0.75), ("recall[no]", 1.0)]
    shown = capsys.readouterr().out
    assert "PASS  0123456789ab" in shown
    assert "12.5" in shown
    assert "recall[no]" in shown  # neither a style nor its end
    assert "recall[/yes]" in shown


def test_the_stage_judges_the_controls(stage):
    fared = {each["name"]: each for each in json.loads(stage(12.5))["controls"]}
    assert {name: each["outcome"] for name, each in fared.items()} == {
        "labels shuffled": "refused",
        "slow": "refused",
        "itself": "no difference",
    }
    assert fared["labels shuffled"]["scored"]["accuracy"] == 0.25


def test_the_stage_judges_what_a_change_of_the_input_does(stage):
    said = json.loads(stage(12.5))
    judged = {each["name"]: each["value"] for each in said["criteria"] if each["about"] == "robustness"}
    assert judged == {"flip of image": 0.0, "shift of image by 0.1": 0.5}
    tighter = {"image": {"shift": {"by": 0.1, "max_changed": 0.4}}}
    assert reasons(json.loads(stage(12.5, robustness=tighter))) == {
        "shift of image by 0.1": "shift of image by 0.1 changes 2 of 4 answers; gate.robustness.image.shift.max_changed"
        " allows a share of 0.4"
    }


def test_the_stage_writes_the_same_bytes_for_another_passing_time(stage):
    assert stage(12.5) == stage(99.0)


def test_the_stage_judges_time_and_size_beside_the_champion(stage):
    assert reasons(json.loads(stage(12.5, ratios=[1.05] * 20))) == {}
    slower = stage(12.5, ratios=[2.0] * 20, max_larger=1.4)
    larger = "what is served is 1.50 times as large as the champion's; gate.max_larger allows 1.4"
    assert reasons(json.loads(slower)) == {
        "latency over the champion's": "asked in turn with the champion, it takes longer than gate.max_slower allows",
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
def test_noise_is_no_verdict_on_the_time_beside_the_champion(stage, ratios, outcome):
    said = json.loads(stage(12.5, ratios))
    (found,) = (each for each in said["criteria"] if each["name"] == "latency over the champion's")
    assert gate.fared(found)[0] == outcome and found["value"] is None and found["interval"] is None


def test_a_refusal_is_written_and_shown(stage, capsys):
    assert list(reasons(json.loads(stage(101.0)))) == ["latency p99"]
    shown = capsys.readouterr().out
    assert "REFUSE  0123456789ab" in shown
    assert "refused: one sample takes longer than gate.p99_ms allows" in shown


def test_data_that_have_moved_since_the_champions_are_refused_or_left_to_a_person(stage, capsys):
    new, old = (of_words([("cat", cats), ("cow", 500 - cats // 2), ("dog", 500 - cats // 2)]) for cats in (50, 300))
    for path, train, test in ((Path("new.json"), new, new), (Path("old.json"), old, old)):
        distributions.dump({"label": {"train": train, "test": test}}, path)
    assert reasons(json.loads(stage(12.5))) == {}  # there is no champion to have moved from
    Path("challenge/challenge.json").write_text(json.dumps({**NONE, "state": "incompatible"}))
    found = reasons(json.loads(stage(12.5)))
    assert list(found) == ["label: as the champion's"]
    assert found["label: as the champion's"].startswith(
        "label is not as in the champion's training rows: share of 'cat' 0.3 -> 0.05. That is a distance of 0.2"
    )
    shown = capsys.readouterr().out
    assert "label: as the champion's" in shown and "distances between columns of data: 1 hold, the largest 0" in shown
    params.edit({"gate": {"approval": ["data"]}})
    assert json.loads(stage(12.5))["verdict"] == "needs a person"
    params.merge({"gate": {"drift": {"max_distance": 0.25}}})
    assert json.loads(stage(12.5))["verdict"] == "pass"


SMALL = {"min_rows": 2, "thresholds": {"accuracy": {"min": 0.6}}}


@pytest.mark.parametrize(
    ("by", "how", "found"),
    [
        ("label", {}, {"/yes": (2, 0.5), "no": (2, 1.0)}),
        ("folder", {"min_rows": 3}, {"a": (2, None), "b": (1, None), "d": (1, None)}),
        ("image.brightness", {"bins": 2}, {"1 to 2": (3, 1.0), "50": (1, None)}),
        ("image.width", {}, {"8": (3, 1.0), "16": (1, None)}),
        ("hospital", {}, {"Ulm": (2, 1.0), "Bonn": (1, None), "(missing)": (1, None)}),
        ("age", {"bins": 2}, {"30 to 40": (2, 1.0), "50": (1, None), "(missing)": (1, None)}),
    ],
)
def test_the_stage_judges_slices(stage, by, how, found, capsys):
    """The third answer, rows 0, 2, 3 and 5 of the table, is the only one that is wrong."""
    params.edit({"gate": {"slices": {by: SMALL | how}}})
    said = json.loads(stage(12.5))
    assert {each["value"]: each["rows"] for each in said["slices"]} == {name: n for name, (n, _) in found.items()}
    sliced = {each["name"].rpartition(" is ")[2]: each for each in said["criteria"] if each["about"] == "slice"}
    for name, (rows, accuracy) in found.items():
        assert sliced[name]["rows"] == rows
        assert sliced[name]["value"] == accuracy
        assert sliced[name]["holds"] == (accuracy is None or accuracy >= 0.6)
        assert ("are not judged" in sliced[name]["note"]) == (accuracy is None)
    assert said["verdict"] == ("refuse" if by == "label" else "pass")
    shown = capsys.readouterr().out
    assert ("accuracy where label is /yes" in shown) == (by == "label")


def test_a_slice_alone_refuses_and_says_what_to_do(stage):
    params.edit({"gate": {"slices": {"label": SMALL}}})
    assert reasons(json.loads(stage(12.5))) == {
        "accuracy where label is /yes": "where label is /yes (2 test rows), accuracy is 0.5000, which is not at least"
        " 0.6: mend or add such rows, or change gate.slices.label"
    }


def test_a_slice_without_a_label_is_not_judged_by_it(stage):
    """The rows of a are of the label no alone."""
    asked = {name: {"min": 0.9} for name in ("recall[/yes]", "recall[no]", "auroc", "f1_macro")}
    params.edit({"gate": {"slices": {"folder": {"min_rows": 2, "thresholds": asked}}}})
    said = json.loads(stage(12.5))
    assert reasons(said) == {}
    sliced = {each["name"]: each for each in said["criteria"] if each["about"] == "slice"}
    assert sliced["recall[no] where folder is a"]["value"] == sliced["f1_macro where folder is a"]["value"] == 1
    assert sliced["auroc where folder is a"]["bound"] == sliced["recall[/yes] where folder is a"]["bound"] == "defined"
    note = "recall[/yes] is not judged where folder is a: its 2 test rows do not define it"
    assert sliced["recall[/yes] where folder is a"]["note"] == note


def test_a_control_is_not_refused_for_a_label_that_its_rows_lack(stage, monkeypatch):
    """Else any bad model would be, whatever the bound is worth."""
    monkeypatch.setattr(gate, "some_rows", lambda count: np.arange(2))  # both of the label no
    np.savez("answers/controls.npz", **{"labels shuffled": np.array([[0.1, 0.9], [0.2, 0.8]], np.float32)})
    params.edit({"gate": {"thresholds": {"recall[/yes]": {"min": 0.1}}}})
    said = json.loads(stage(12.5))
    assert next(each["outcome"] for each in said["controls"] if each["name"] == "labels shuffled") == "passed"
    assert said["verdict"] == "refuse"


def test_what_the_champion_was_judged_on_and_is_no_more_is_told(stage):
    params.edit(
        {"gate": {"slices": {"label": SMALL | {"thresholds": {"accuracy": {"min": 0.5}}}, "image.width": SMALL}}}
    )
    stage(12.5)
    before = json.loads(Path("verdict.json").read_text())["slices"]
    before += [{"by": "label", "value": "maybe", "rows": 9, "span": None}]
    before += [{"by": "image.width", "value": "9 to 15", "rows": 9, "span": [9.0, 15.0]}]
    before += [{"by": "town", "value": "Ulm", "rows": 9, "span": None}]
    Path("before.json").write_text(json.dumps({"slices": before}))
    said = json.loads(stage(12.5))
    assert reasons(said) == {}
    assert [each["note"] for each in said["criteria"] if each["rows"] == 0] == [
        "no test row is left where label is maybe, which the champion was judged on",
        "no test row is left where image.width is 9 to 15, which the champion was judged on",
    ]
    assert all(each["rows"] for each in said["slices"])


def test_a_slice_that_is_worse_than_the_champions_refuses(stage):
    """The champion has the third answer right and the second wrong: alike as a whole."""
    theirs = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    np.savez("challenge/answers.npz", probabilities=theirs)
    Path("challenge/challenge.json").write_text(json.dumps(ANSWERS))
    params.edit({"gate": {"slices": {"label": {"min_rows": 2, "margins": {"accuracy": 0.3}}}}})
    found = reasons(json.loads(stage(12.5)))
    assert list(found) == ["against the champion: accuracy where label is /yes"]
    assert "where label is /yes (2 test rows), accuracy is worse by 0.5000 than the champion's" in found.popitem()[1]


def test_a_column_that_the_table_lacks_is_told_with_the_nearest(stage):
    params.edit({"gate": {"slices": {"image.height": SMALL}}})  # which the table of params.yaml has
    with pytest.raises(
        UserError, match=r"gate\.slices\.image\.height: the table has no such column: did you mean 'image"
    ):
        stage(12.5)


def test_a_column_that_no_test_row_tells_is_said():
    asked = OfSlices({}, MARGINS, 2)
    evidence = Evidence("0123456789ab", {"accuracy": Estimate(0.97)}, CHECKS, 5.0, ANSWERS)
    said = judge(evidence, Policy(at_least(0.9), {}, 0.05, 100.0, slices={"label": asked}))
    assert reasons(said) == {}
    assert [each["note"] for each in said["criteria"] if each["about"] == "slice"] == [
        "no test row tells its label: gate.slices.label asks for nothing"
    ]


def test_a_target_of_numbers_is_sliced_too(stage):
    fitted = {"mean": 0.0, "std": 1.0, "coverage": 0.9}
    Schema((), Column("said", "target_number", {}, fitted)).dump(Path("schema.json"))
    shutil.rmtree("arrays")
    truth = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    create_split(Path("arrays/test"), np.array([0, 2, 3, 5]), truth, [])
    interval = np.concatenate([truth - 9, truth + 9], axis=1)
    ours = truth + np.array([[0.0], [0.1], [0.0], [2.0]], np.float32)
    np.savez("answers/answers.npz", value=ours, interval=interval)
    np.savez("answers/controls.npz", **{"labels shuffled": -truth})
    np.savez("challenge/answers.npz", value=truth + np.float32(1.5), interval=interval)
    Path("challenge/challenge.json").write_text(json.dumps(ANSWERS))
    slices = {"label": {"min_rows": 2, "thresholds": {"mae": {"max": 0.5}}, "margins": {"rmse": 0.5}}}
    params.edit(
        {"gate": {"thresholds": {"rmse": {"max": 1.2}}, "margins": {"rmse": 0.1}, "slices": slices, "robustness": {}}}
    )
    said = json.loads(stage(12.5))
    assert list(reasons(said)) == ["mae where label is /yes"]
    sliced = {each["name"]: each["value"] for each in said["criteria"] if each["about"] == "slice"}
    assert sliced == {
        "mae where label is no": pytest.approx(0.05),
        "mae where label is /yes": pytest.approx(1.0),
        "against the champion: rmse where label is no": pytest.approx(1.5 - 0.1 / 2**0.5, abs=1e-5),
        "against the champion: rmse where label is /yes": pytest.approx(1.5 - 2**0.5, abs=1e-5),
    }
