"""From any evidence to a verdict; and no worse evidence that turns a refusal into a pass."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.gating.verdict import (
    COMPARED,
    NO_DIFFERENCE,
    PASS,
    REFUSE,
    Difference,
    Estimate,
    Evidence,
    Figure,
    OfSlices,
    Policy,
    Slice,
    Tried,
    judge,
)

SLOW = [HealthCheck.too_slow]  # a busy machine is no fault
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
    """Policies whose latency bound is drawn from `bound_ms`."""
    return st.builds(
        Policy,
        thresholds=bounds,
        margins=margins,
        level=st.floats(0.001, 0.499),
        p99_ms=bound_ms,
        approval=st.lists(st.sampled_from([*GROUPS, *NAMES])),
        slices=st.dictionaries(st.sampled_from(BY), st.builds(OfSlices, bounds, margins, st.integers(2, 50))),
    )


def measured(number):
    return st.dictionaries(st.sampled_from(NAMES), st.builds(Estimate, number, number, number))


def differences(number):
    return st.dictionaries(st.sampled_from(NAMES), st.builds(Difference, number, number, number, st.integers(1, 10**9)))


no_controls = st.just(())


def evidences(number, controls=no_controls):
    """Evidence whose figures are drawn from `number`."""
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
        Tried,
        name=st.text(),
        what=st.text(),
        expected=st.sampled_from([*EXPECTED, NO_DIFFERENCE, "nothing known"]),
        evidence=st.none() | evidences(anything),
        inapplicable=st.text(min_size=1),
    ),
    max_size=3,
)


@given(evidences(anything, controls), policies(anything))
def test_any_evidence_gives_a_verdict_with_its_reasons(evidence, policy):
    said = judge(evidence, policy)
    refused = [criterion for criterion in said["criteria"] if not criterion["holds"]]
    asked = all({each["about"], each["name"]} & set(policy.approval) for each in refused)
    assert said["verdict"] == ("pass" if not refused else "needs a person" if asked else "refuse")
    assert all(criterion["reason"] for criterion in refused)
    assert all(criterion["holds"] in (True, False) for criterion in said["criteria"])
    assert len(said["controls"]) == len(evidence.controls)
    json.dumps(said, allow_nan=False)


def lowered(measured, thresholds, less):
    """Farther beyond what each is bounded by; those that are bounded at both ends are gone."""
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
def test_worse_evidence_is_never_better(evidence, policy, data):
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
def test_a_control_that_is_not_refused_for_its_own_reason_refuses(evidence, bad, expected, policy):
    control = Tried("bad", "a bad model", expected, bad)
    said = judge(replace(evidence, controls=[control]), policy)
    (fared,) = said["controls"]
    alone = judge(bad, policy)
    own = any(each["about"] == expected and not each["holds"] for each in alone["criteria"])
    if expected == "threshold" and not policy.thresholds:
        assert fared["outcome"] == "not applicable"
    elif own:
        assert (fared["outcome"], fared["holds"]) == ("refused", True)
    else:
        assert fared["outcome"] == ("passed" if alone["verdict"] == "pass" else "another reason")
        assert said["verdict"] == "refuse" and said["criteria"][-1]["reason"] == fared["told"] != ""


@given(evidences(share), policies(share))
def test_the_candidate_beside_itself_must_not_differ(evidence, policy):
    known = replace(evidence, champion={"state": "answers", "outcome": "itself"})
    control = Tried("itself", "the candidate", NO_DIFFERENCE, known)
    said = judge(replace(evidence, controls=[control]), policy)
    other = any(each.value != 0 or each.better for each in evidence.differences.values())
    compared = judge(known, policy)["criteria"]
    worse = {each["name"] for each in compared if not each["holds"]} & {
        COMPARED + name for name in evidence.differences
    }
    assert said["controls"][0]["holds"] == (not other and not worse)


@given(evidences(anything), policies(anything))
def test_a_slice_is_judged_as_the_whole_would_be(evidence, policy):
    """With the bounds of its slices, and only where it has the rows."""
    said = judge(evidence, policy)["criteria"]
    for each in (each for each in evidence.slices if each.by in policy.slices):
        asked, where = policy.slices[each.by], f" where {each.by} is {each.value}"
        alone = replace(evidence, measured=each.measured, differences=each.differences, slices=())
        whole = judge(alone, replace(policy, thresholds=asked.thresholds, margins=asked.margins, slices={}))["criteria"]
        enough = each.rows >= asked.min_rows
        expected = [
            (f"{one['name']}{where}", one["value"], one["holds"], one["interval"], each.rows)
            for one in whole
            if enough and one["about"] in ("threshold", "champion") and one["bound"] not in ("needed", "at least one")
        ]
        names = ("name", "value", "holds", "interval", "rows")
        found = [tuple(one[name] for name in names) for one in said if one["about"] == "slice"]
        assert all(one in found for one in expected)
        assert enough or any(one["rows"] == each.rows and one["note"] and one["holds"] for one in said)
