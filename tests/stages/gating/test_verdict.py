"""Any evidence gives a verdict, and worse evidence never turns a refusal into a pass."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.gating.evidence import (
    COMPARED,
    NO_DIFFERENCE,
    ControlEvidence,
    Difference,
    Estimate,
    Evidence,
    Figure,
    Policy,
    Slice,
    SliceBounds,
)
from stages.gating.verdict import PASS, REFUSE, judge

SLOW = [HealthCheck.too_slow]  # a busy machine is not an error
settings.register_profile("here", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
settings.load_profile("here")
STATES = ("none", "itself", "incompatible", "lost", "answers")
NAMES = ("accuracy", "rmse", "recall[7]")

anything = st.floats(allow_nan=True, allow_infinity=True)
share = st.floats(0, 1)
bounds = st.dictionaries(
    st.sampled_from(NAMES), st.fixed_dictionaries({"min": st.none() | share, "max": st.none() | share})
)
margins = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1))
GROUPS = ("threshold", "parity", "latency", "champion", "slice", "robustness")
BY = ("label", "length")


def policies(bound_ms):
    """Policies with a latency bound from `bound_ms`."""
    return st.builds(
        Policy,
        thresholds=bounds,
        margins=margins,
        level=st.floats(0.001, 0.499),
        p99_ms=bound_ms,
        approval=st.lists(st.sampled_from([*GROUPS, *NAMES])),
        slices=st.dictionaries(st.sampled_from(BY), st.builds(SliceBounds, bounds, margins, st.integers(2, 50))),
    )


def measured(number):
    return st.dictionaries(st.sampled_from(NAMES), st.builds(Estimate, number, number, number))


def differences(number):
    return st.dictionaries(st.sampled_from(NAMES), st.builds(Difference, number, number, number, st.integers(1, 10**9)))


no_controls = st.just(())


def evidences(number, controls=no_controls):
    """Evidence with values from `number`."""
    return st.builds(
        Evidence,
        release=st.just("0123456789ab"),
        measured=measured(number),
        checks=st.lists(st.fixed_dictionaries({"name": st.text(), "holds": st.booleans(), "max_delta": st.none()})),
        p99_ms=number,
        champion=st.fixed_dictionaries({"state": st.sampled_from(STATES), "outcome": st.text(min_size=1)}),
        differences=differences(number),
        figures=st.lists(
            st.builds(
                Figure,
                about=st.sampled_from(GROUPS[-1:]),
                name=st.text(),
                value=number,
                most=number,
                reason=st.text(min_size=1),
                low=number,
                high=number,
                note=st.just("") | st.text(),
                stated=st.booleans(),
            ),
            max_size=3,
        ),
        slices=st.lists(
            st.builds(
                Slice,
                by=st.sampled_from([*BY, "town"]),
                value=st.text(),
                rows=st.integers(0, 99),
                measured=measured(number),
                differences=differences(number),
                span=st.none() | st.just((0.0, 1.0)),
            ),
            max_size=4,
        ),
        controls=controls,
    )


EXPECTED = ("threshold", "parity", "latency")
controls = st.lists(
    st.builds(
        ControlEvidence,
        name=st.text(),
        what=st.text(),
        expected=st.sampled_from([*EXPECTED, NO_DIFFERENCE, "something else"]),
        evidence=st.none() | evidences(anything),
        inapplicable=st.text(min_size=1),
    ),
    max_size=3,
)


@given(evidences(anything, controls), policies(anything))
def test_any_evidence_gives_a_verdict_with_its_reasons(evidence, policy):
    verdict = judge(evidence, policy)
    failed = [criterion for criterion in verdict["criteria"] if not criterion["holds"]]
    acceptable = all({criterion["about"], criterion["name"]} & set(policy.approval) for criterion in failed)
    assert verdict["verdict"] == ("pass" if not failed else "needs a person" if acceptable else "refuse")
    assert all(criterion["reason"] for criterion in failed)
    assert all(criterion["holds"] in (True, False) for criterion in verdict["criteria"])
    assert len(verdict["controls"]) == len(evidence.controls)
    json.dumps(verdict, allow_nan=False)


def lowered(measured, thresholds, less):
    """Move each metric past its bound, and drop those that are bounded at both ends."""
    at_least = {name for name, bound in thresholds.items() if bound["min"] is not None}
    at_most = {name for name, bound in thresholds.items() if bound["max"] is not None}
    return {
        name: replace(each, value=each.value + less * ((name in at_most) - (name in at_least)))
        for name, each in measured.items()
        if not (name in at_most and name in at_least)
    }


def widened(differences, less):
    return {name: replace(each, value=each.value - less, low=each.low - less) for name, each in differences.items()}


@given(evidences(share, controls), policies(share), st.data())
def test_worse_evidence_never_turns_a_refusal_into_a_pass(evidence, policy, data):
    less, before = data.draw(st.floats(0, 1)), judge(evidence, policy)["verdict"]
    if before == PASS:
        return
    worse = replace(
        evidence,
        measured=lowered(evidence.measured, policy.thresholds, less),
        checks=[{**check, "holds": check["holds"] and data.draw(st.booleans())} for check in evidence.checks],
        p99_ms=evidence.p99_ms + less,
        differences=widened(evidence.differences, less),
        figures=[replace(each, value=each.value + less) for each in evidence.figures],
        slices=[
            replace(
                each,
                measured=lowered(each.measured, policy.slices[each.by].thresholds, less),
                differences=widened(each.differences, less),
            )
            for each in evidence.slices
            if each.by in policy.slices
        ],
    )
    after = judge(worse, policy)["verdict"]
    assert after == REFUSE if before == REFUSE else after != PASS


@given(evidences(anything), evidences(anything), st.sampled_from(EXPECTED), policies(anything))
def test_a_control_that_is_not_refused_for_the_expected_reason_refuses(evidence, bad, expected, policy):
    verdict = judge(replace(evidence, controls=[ControlEvidence("bad", "a bad model", expected, bad)]), policy)
    (control,) = verdict["controls"]
    alone = judge(bad, policy)
    refused = any(criterion["about"] == expected and not criterion["holds"] for criterion in alone["criteria"])
    if expected == "threshold" and not policy.thresholds:
        assert control["outcome"] == "not applicable"
    elif refused:
        assert (control["outcome"], control["holds"]) == ("refused", True)
    else:
        assert control["outcome"] == ("passed" if alone["verdict"] == "pass" else "another reason")
        assert verdict["verdict"] == "refuse" and verdict["criteria"][-1]["reason"] == control["told"] != ""


@given(evidences(share), policies(share))
def test_the_candidate_compared_with_itself_must_not_differ(evidence, policy):
    itself = replace(evidence, champion={"state": "answers", "outcome": "itself"})
    control = ControlEvidence("itself", "the candidate", NO_DIFFERENCE, itself)
    verdict = judge(replace(evidence, controls=[control]), policy)
    differs = any(difference.value != 0 or difference.better for difference in evidence.differences.values())
    failed = {criterion["name"] for criterion in judge(itself, policy)["criteria"] if not criterion["holds"]}
    worse = failed & {COMPARED + name for name in evidence.differences}
    assert verdict["controls"][0]["holds"] == (not differs and not worse)


@given(evidences(anything), policies(anything))
def test_a_slice_is_judged_like_a_whole_test_split(evidence, policy):
    """With bounds of its own, and only if it has enough rows."""
    criteria = judge(evidence, policy)["criteria"]
    names = ("name", "value", "holds", "interval", "rows")
    of_slices = [tuple(criterion[name] for name in names) for criterion in criteria if criterion["about"] == "slice"]
    for part in (part for part in evidence.slices if part.by in policy.slices):
        bounds, where = policy.slices[part.by], f" where {part.by} is {part.value}"
        alone = replace(evidence, measured=part.measured, differences=part.differences, slices=())
        alone_policy = replace(policy, thresholds=bounds.thresholds, margins=bounds.margins, slices={})
        enough = part.rows >= bounds.min_rows
        expected = [
            (f"{criterion['name']}{where}", criterion["value"], criterion["holds"], criterion["interval"], part.rows)
            for criterion in judge(alone, alone_policy)["criteria"]
            if criterion["about"] in ("threshold", "champion") and criterion["bound"] not in ("needed", "at least one")
        ]
        if enough:
            assert all(criterion in of_slices for criterion in expected)
        else:
            assert any(each["rows"] == part.rows and each["note"] and each["holds"] for each in criteria)
