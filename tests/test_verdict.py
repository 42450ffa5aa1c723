"""From any evidence to a verdict; and no worse evidence that turns a refusal into a pass."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.verdict import Difference, Estimate, Evidence, judge

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


def evidences(number):
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
    )


@given(evidences(anything), bounds, margins, level, anything)
def test_any_evidence_gives_a_verdict_with_its_reasons(evidence, thresholds, margins, level, p99_bound_ms):
    said = judge(evidence, thresholds, margins, level, p99_bound_ms)
    refused = [criterion for criterion in said["criteria"] if not criterion["holds"]]
    assert said["verdict"] == ("refuse" if refused else "pass")
    assert all(criterion["reason"] for criterion in refused)
    assert all(criterion["holds"] in (True, False) for criterion in said["criteria"])
    json.dumps(said, allow_nan=False)


@given(evidences(share), bounds, margins, level, share, st.data())
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
