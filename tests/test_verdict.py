"""From any evidence to a verdict; and no worse evidence that turns a refusal into a pass."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.verdict import COMPARED, NO_DIFFERENCE, Difference, Estimate, Evidence, Tried, judge

settings.register_profile("here", derandomize=True, deadline=None, database=None)  # the same on every machine
settings.load_profile("here")
STATES = ("none", "itself", "incompatible", "lost", "answers")
NAMES = ("accuracy", "rmse", "recall[7]")

anything = st.floats(allow_nan=True, allow_infinity=True)
share = st.floats(0, 1)
bounds = st.dictionaries(
    st.sampled_from(NAMES), st.fixed_dictionaries({"min": st.none() | share, "max": st.none() | share})
)
margins = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1))
level = st.floats(0.001, 0.499)


no_controls = st.just(())


def evidences(number, controls=no_controls):
    """Evidence whose figures are drawn from `number`."""
    return st.builds(
        Evidence,
        release=st.just("0123456789ab"),
        measured=st.dictionaries(st.sampled_from(NAMES), st.builds(Estimate, number, number, number)),
        checks=st.lists(st.fixed_dictionaries({"name": st.text(), "holds": st.booleans(), "max_delta": st.none()})),
        p99_ms=number,
        champion=st.fixed_dictionaries({"state": st.sampled_from(STATES), "outcome": st.text(min_size=1)}),
        differences=st.dictionaries(
            st.sampled_from(NAMES), st.builds(Difference, number, number, number, st.integers(1, 10**9))
        ),
        controls=controls,
    )


REFUSING = {  # what a control may be expected to be refused by: whether a criterion is about that
    "a threshold": lambda name: name in (*NAMES, "thresholds"),
    "parity": lambda name: name.startswith("served"),
    "latency": lambda name: name == "latency p99",
}
controls = st.lists(
    st.builds(
        Tried,
        name=st.text(),
        what=st.text(),
        expected=st.sampled_from([*REFUSING, NO_DIFFERENCE, "nothing known"]),
        evidence=st.none() | evidences(anything),
        inapplicable=st.text(min_size=1),
    ),
    max_size=3,
)


@given(evidences(anything, controls), bounds, margins, level, anything)
def test_any_evidence_gives_a_verdict_with_its_reasons(evidence, thresholds, margins, level, p99_bound_ms):
    said = judge(evidence, thresholds, margins, level, p99_bound_ms)
    refused = [criterion for criterion in said["criteria"] if not criterion["holds"]]
    assert said["verdict"] == ("refuse" if refused else "pass")
    assert all(criterion["reason"] for criterion in refused)
    assert all(criterion["holds"] in (True, False) for criterion in said["criteria"])
    assert len(said["controls"]) == len(evidence.controls)
    json.dumps(said, allow_nan=False)


@given(evidences(share, controls), bounds, margins, level, share, st.data())
def test_worse_evidence_is_never_better(evidence, thresholds, margins, level, p99_bound_ms, data):
    less = data.draw(st.floats(0, 1))
    if judge(evidence, thresholds, margins, level, p99_bound_ms)["verdict"] == "pass":
        return
    at_least = {name for name, bound in thresholds.items() if bound["min"] is not None}
    at_most = {name for name, bound in thresholds.items() if bound["max"] is not None}
    worse = replace(
        evidence,
        measured={
            name: replace(each, value=each.value + less * ((name in at_most) - (name in at_least)))
            for name, each in evidence.measured.items()
            if not (name in at_most and name in at_least)
        },
        checks=[{**check, "holds": check["holds"] and data.draw(st.booleans())} for check in evidence.checks],
        p99_ms=evidence.p99_ms + less,
        differences={
            name: replace(each, value=each.value - less, low=each.low - less)
            for name, each in evidence.differences.items()
        },
    )
    assert judge(worse, thresholds, margins, level, p99_bound_ms)["verdict"] == "refuse"


@given(evidences(anything), evidences(anything), st.sampled_from(list(REFUSING)), bounds, margins, level, anything)
def test_a_control_that_is_not_refused_for_its_own_reason_refuses(
    evidence, bad, expected, thresholds, margins, level, p99_bound_ms
):
    control = Tried("bad", "a bad model", expected, bad)
    said = judge(replace(evidence, controls=[control]), thresholds, margins, level, p99_bound_ms)
    (fared,) = said["controls"]
    alone = judge(bad, thresholds, margins, level, p99_bound_ms)
    own = any(REFUSING[expected](each["name"]) and not each["holds"] for each in alone["criteria"])
    if expected == "a threshold" and not thresholds:
        assert fared["outcome"] == "not applicable"
    elif own:
        assert (fared["outcome"], fared["holds"]) == ("refused", True)
    else:
        assert fared["outcome"] == ("another reason" if alone["verdict"] == "refuse" else "passed")
        assert said["verdict"] == "refuse" and said["criteria"][-1]["reason"] == fared["told"] != ""


@given(evidences(share), bounds, margins, level, share)
def test_the_candidate_beside_itself_must_not_differ(evidence, thresholds, margins, level, p99_bound_ms):
    known = replace(evidence, champion={"state": "answers", "outcome": "itself"})
    control = Tried("itself", "the candidate", NO_DIFFERENCE, known)
    said = judge(replace(evidence, controls=[control]), thresholds, margins, level, p99_bound_ms)
    other = any((each.value, each.low) != (0, 0) for each in evidence.differences.values())
    compared = judge(known, thresholds, margins, level, p99_bound_ms)["criteria"]
    worse = {each["name"].removeprefix(COMPARED) for each in compared if not each["holds"]}
    assert said["controls"][0]["holds"] == (not other and not worse & evidence.differences.keys())
