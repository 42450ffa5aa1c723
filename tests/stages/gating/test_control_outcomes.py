"""Controls in the verdict: a bad candidate must be refused for the expected reason, and none may differ from itself."""

from __future__ import annotations

import pytest

from stages.gating.evidence import NO_DIFFERENCE, ControlEvidence, Difference, Estimate, Evidence
from tests.support.gating import ANSWERS, CHECKS, MEASURED, NO_CHAMPION, at_least, reasons, verdict


def control_evidence(expected, what, **evidence):
    """A control that meets every criterion except for what `evidence` changes."""
    measured = {name: Estimate(value) for name, value in MEASURED.items()}
    fields = {"measured": measured, "checks": CHECKS, "p99_ms": 5.0, "champion": NO_CHAMPION} | evidence
    return ControlEvidence("bad", what, expected, Evidence("0123456789ab", **fields))


SHUFFLED = control_evidence("threshold", "a model with its labels shuffled", measured={"accuracy": Estimate(0.0945)})
SLOW = control_evidence("latency", "a model that takes 200 ms to answer", p99_ms=201.0)
REPEATED = control_evidence(
    "parity", "a model that repeats itself", checks=[{"name": "x", "holds": False, "max_delta": 0.5}]
)


def test_controls_that_are_refused_hold_and_list_their_scores():
    judged = verdict(controls=[SHUFFLED, REPEATED, SLOW], bounds=at_least(0.95))
    assert reasons(judged) == {}
    assert [(control["outcome"], control["scored"]) for control in judged["controls"]] == [
        ("refused", {"accuracy": 0.0945}),
        ("refused", {"served: x": 0.5}),
        ("refused", {"latency p99": None}),
    ]
    bounds = [criterion["bound"] for criterion in judged["criteria"][-3:]]
    assert bounds == ["refused by threshold", "refused by parity", "refused by latency"]


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
            control_evidence("threshold", "a bad model", measured={"accuracy": Estimate(0.5), "rmse": Estimate(9.0)}),
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
            control_evidence("parity", "a model that repeats itself"),
            {},
            "no check distinguishes a model that repeats itself from the checkpoint: all answers are equal, or the"
            " comparison is wrong",
        ),
    ],
)
def test_a_control_that_passes_refuses_and_names_the_bound_to_change(control, gate, reason):
    judged = verdict(controls=[control], **gate)
    assert reasons(judged) == {"control: bad": reason}
    assert judged["controls"][0]["outcome"] == "passed"


def test_a_control_that_is_refused_for_another_reason_refuses():
    control = control_evidence("threshold", "a bad model", p99_ms=1e6)
    judged = verdict(controls=[control], bounds=at_least(0.9))
    assert judged["controls"][0]["outcome"] == "another reason"
    reason = reasons(judged)["control: bad"]
    assert "it is refused only for another reason: one sample takes longer than" in reason


def test_a_control_that_cannot_be_made_is_not_applicable():
    batch = ControlEvidence("one row repeated", "a model", "parity", None, "no request holds more than one row")
    judged = verdict(controls=[batch, SHUFFLED], bounds={})
    assert list(reasons(judged)) == ["thresholds"]
    assert [(control["outcome"], control["told"]) for control in judged["controls"]] == [
        ("not applicable", "no request holds more than one row"),
        ("not applicable", "gate.thresholds is empty"),
    ]
    note = "control: one row repeated: not applicable, no request holds more than one row"
    assert judged["criteria"][-2]["note"] == note


@pytest.mark.parametrize(
    ("value", "low", "holds"), [(0.0, -0.01, True), (0.01, -0.01, False), (0.0, 0.001, False), (0.0, -0.03, False)]
)
def test_the_candidate_may_not_differ_from_itself(value, low, holds):
    evidence = {"champion": ANSWERS, "differences": {"accuracy": Difference(value, low, 0.0, 400)}}
    judged = verdict(controls=[control_evidence(NO_DIFFERENCE, "the candidate", **evidence)])
    assert bool(reasons(judged)) != holds
    assert judged["controls"][0]["outcome"] == ("no difference" if holds else "a difference")
