"""The verdict as a function: what passes, and the reason of each refusal."""

from __future__ import annotations

import json
import math
import re

import pytest

from stages.gating.criteria import ADVICE
from stages.gating.evidence import Difference, Estimate, Evidence, Policy, SliceBounds
from stages.gating.verdict import judge
from tests.support.gating import ANSWERS, CHECKS, MARGINS, at_least, reasons, verdict
from tests.support.project import ROOT

LOST = {"champion": "ba9876543210", "state": "lost", "outcome": "ba9876543210 cannot be served: `dvc pull`"}


def test_a_candidate_that_meets_every_criterion_passes():
    judged = verdict()
    assert reasons(judged) == {}
    criteria = judged["criteria"]
    assert [(criterion["name"], criterion["bound"], criterion["value"]) for criterion in criteria] == [
        ("accuracy", "at least 0.95", 0.97),
        ("calibration_error", "at most 0.1", 0.02),
        ("served: batches of 64", "as the checkpoint", 1e-7),
        ("served: counted", "as the checkpoint", None),
        ("latency p99", "at most 100 ms", None),
    ]
    assert (judged["release"], judged["champion"]) == ("0123456789ab", "no champion yet")


@pytest.mark.parametrize("edge", [{"min": 0.97, "max": None}, {"min": None, "max": 0.97}, {"min": 0.97, "max": 0.97}])
def test_a_value_equal_to_its_bound_passes(edge):
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


def test_the_verdict_lists_every_reason():
    failed = reasons(verdict(bounds=at_least(0.99) | at_least(0.99, "f1_macro"), p99_ms=1e6))
    assert list(failed) == ["accuracy", "f1_macro", "latency p99"]


def test_a_metric_of_one_class():
    assert reasons(verdict(bounds=at_least(0.8, "recall[3]"))) == {}
    assert reasons(verdict(bounds=at_least(0.8, "recall[8]"))) == {
        "recall[8]": f"recall[8] is 0.7000, which is not at least 0.8{ADVICE}"
    }


@pytest.mark.parametrize(
    ("metric", "nearest"), [("acuracy", "accuracy"), ("f1-macro", "f1_macro"), ("recall[33]", "recall[3]")]
)
def test_an_unknown_metric_refuses_and_suggests_the_nearest_name(metric, nearest):
    reason = f"there is no metric {metric!r}: did you mean '{nearest}'?"
    assert reasons(verdict(bounds=at_least(0.0, metric))) == {metric: reason}


def test_an_unknown_metric_without_a_near_name_lists_all_metrics():
    reason = reasons(verdict(measured={"loss": 0.1, "speed": 2.0}, bounds=at_least(0.0, "zzz")))["zzz"]
    assert reason == "there is no metric 'zzz': there is loss, speed"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", [{"min": 0.0, "max": None}, {"min": None, "max": 1.0}])
def test_a_value_that_is_not_finite_refuses(value, bound):
    judged = verdict(measured={"accuracy": value}, bounds={"accuracy": bound})
    assert list(reasons(judged)) == ["accuracy"]
    json.dumps(judged, allow_nan=False)


def test_without_thresholds_nothing_passes():
    assert reasons(verdict(bounds={})) == {
        "thresholds": "gate.thresholds in params.yaml is empty, and gate.yardsticks.above_constant is false: nothing"
        " could be refused"
    }


def test_served_answers_that_differ_from_the_checkpoint_refuse():
    checks = [*CHECKS, {"name": "batches of 1", "holds": False, "max_delta": 0.3}]
    judged = verdict(checks=checks)
    assert reasons(judged) == {
        "served: batches of 1": "the served answers differ from the checkpoint's: parity.json says by how much"
    }
    assert {"name": "served: batches of 1", "value": 0.3}.items() <= judged["criteria"][4].items()


def test_a_value_just_below_its_bound_is_written_with_enough_decimals():
    reason = reasons(verdict({"accuracy": 0.949997}))["accuracy"]
    assert reason.startswith("accuracy is 0.949997, which is not at least 0.95:")


def test_a_failed_check_without_a_number_is_named():
    failed = reasons(verdict(checks=[{"name": "Triton counted 4 samples", "holds": False, "max_delta": None}]))
    assert list(failed.values()) == ["this check of the served answers failed: Triton counted 4 samples"]


def test_no_parity_check_refuses():
    assert reasons(verdict(checks=[])) == {"served": "no served answer was compared with the checkpoint's"}


@pytest.mark.parametrize("p99_ms", [100.1, math.inf, math.nan])
def test_slow_answers_refuse(p99_ms):
    slow = "one sample takes longer than gate.p99_ms allows: train a smaller network, or raise it"
    assert reasons(verdict(p99_ms=p99_ms)) == {"latency p99": slow}


def test_the_gate_documentation_lists_every_key_of_the_verdict():
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    keys = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page.partition("## reports/verdict.json")[2], re.MULTILINE))
    )
    judged = verdict()
    assert set(keys) == judged.keys() | judged["criteria"][0].keys()
    assert f"of this format: {judged['version']}" in page


def test_the_verdict_holds_no_measured_time():
    """Equal outcomes are equal bytes, on a fast machine and on a slow one."""
    fast, faster = (json.dumps(verdict(p99_ms=ms)) for ms in (87.654, 3.21))
    slow, slower = (json.dumps(verdict(p99_ms=ms)) for ms in (187.654, 1e9))
    assert fast == faster
    assert slow == slower
    assert "187" not in slow
    assert "87.6" not in fast


def test_a_worse_value_never_turns_a_refusal_into_a_pass():
    """Over a grid of bounds: smaller accuracies, larger errors and longer times."""
    grid = [0.0, 0.5, 0.9499999, 0.95, 0.9500001, 1.0]

    def passes(accuracy, error, p99_ms, bound):
        bounds = at_least(bound) | {"calibration_error": {"min": None, "max": bound}}
        measured = {"accuracy": accuracy, "calibration_error": error}
        return verdict(measured, bounds, p99_ms=p99_ms, p99_bound_ms=bound + 1)["verdict"] == "pass"

    for bound in grid:
        assert [passes(value, 0.0, 1.0, bound) for value in grid] == [value >= bound for value in grid]
        assert [passes(1.0, value, 1.0, bound) for value in grid] == [value <= bound for value in grid]
        assert [passes(1.0, 0.0, value + 1, bound) for value in grid] == [value <= bound for value in grid]


def compared(value, low, error=0.005):
    """The criterion on a difference from the champion, and the reasons of the verdict."""
    judged = verdict(champion=ANSWERS, differences={"accuracy": Difference(value, low, error, 400)})
    return judged["criteria"][-1], reasons(judged)


def test_no_worse_than_the_champion_passes():
    criterion, failed = compared(-0.005, -0.013)
    assert failed == {} and criterion["interval"] == (-0.013, None) and criterion["note"] == ""


def test_a_lower_end_beyond_the_margin_refuses():
    _, failed = compared(-0.015, -0.024)
    assert failed == {
        "against the champion: accuracy": "accuracy is worse by 0.0150 than the champion's, and may be by 0.0240;"
        " gate.margins allows 0.02"
    }


def test_with_too_few_samples_the_value_decides_and_a_note_says_how_many_are_needed():
    criterion, failed = compared(-0.015, -0.06, error=0.02)
    assert failed == {}
    note = "400 test samples are too few to test a margin of 0.02: about 2,474 samples or a margin of"
    assert criterion["note"].startswith(note)
    _, failed = compared(-0.021, -0.06, error=0.02)
    assert "worse by 0.0210" in failed["against the champion: accuracy"]


@pytest.mark.parametrize("margins", [MARGINS, {}])
def test_a_lost_champion_refuses(margins):
    assert reasons(verdict(champion=LOST, margins=margins)) == {"against the champion: answers": LOST["outcome"]}


@pytest.mark.parametrize("state", ["none", "itself", "incompatible"])
def test_a_champion_that_cannot_be_compared_refuses_nothing(state):
    judged = verdict(champion={"champion": "x", "state": state, "outcome": "a sentence"})
    assert reasons(judged) == {} and judged["champion"] == "a sentence"


def test_a_missing_or_undefined_difference_refuses():
    assert list(reasons(verdict(champion=ANSWERS))) == ["against the champion: accuracy"]
    assert list(compared(math.nan, math.nan)[1]) == ["against the champion: accuracy"]


@pytest.mark.parametrize("approval", [["accuracy"], ["threshold"], ["threshold", "latency"]])
def test_failures_that_a_person_may_accept_need_one(approval):
    judged = verdict(bounds=at_least(0.98), approval=approval)
    assert judged["verdict"] == "needs a person"
    assert [criterion["name"] for criterion in judged["criteria"] if not criterion["holds"]] == ["accuracy"]
    assert verdict(bounds=at_least(0.98), approval=approval, checks=[])["verdict"] == "refuse"
    assert verdict(approval=approval)["verdict"] == "pass"
    assert verdict(bounds={}, approval=approval)["verdict"] == "refuse"


def test_slices_by_a_column_that_no_test_row_has_are_noted():
    bounds = SliceBounds({}, MARGINS, 2)
    evidence = Evidence("0123456789ab", {"accuracy": Estimate(0.97)}, CHECKS, 5.0, ANSWERS)
    judged = judge(evidence, Policy(at_least(0.9), {}, 0.05, 100.0, slices={"label": bounds}))
    assert reasons(judged) == {}
    assert [criterion["note"] for criterion in judged["criteria"] if criterion["about"] == "slice"] == [
        "no test row has a value of label: gate.slices.label checks nothing"
    ]
