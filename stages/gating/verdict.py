"""From evidence to verdict: a pure and total function. All criteria must hold.

If the only criteria that fail are those that the policy leaves to a person, the verdict is "needs a person".

Controls are judged by the same criteria: candidates that are bad on purpose, and the candidate compared with itself.
Each must be refused for the expected reason; a control that is not refuses the candidate. `controls` lists them, and
`slices` all slices of the test rows, with `rows` and, of numbers, their `span`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stages.gating.control_outcomes import outcome_of
from stages.gating.criteria import criteria_of
from stages.gating.evidence import (
    COMPARED,
    COMPARISON,
    CONTROL,
    COST,
    DATA,
    LATENCY,
    PARITY,
    SLICE,
    THRESHOLD,
    YARDSTICK,
    Comparison,
    Estimate,
    Evidence,
    Policy,
)
from stages.gating.wording import stated

__all__ = [  # what readers of a verdict need
    "COMPARED",
    "COMPARISON",
    "CONTROL",
    "COST",
    "DATA",
    "LATENCY",
    "PARITY",
    "PASS",
    "PERSON",
    "REFUSE",
    "SLICE",
    "THRESHOLD",
    "YARDSTICK",
    "Estimate",
    "Evidence",
    "Policy",
    "judge",
]

PASS, REFUSE, PERSON = "pass", "refuse", "needs a person"


def judge(evidence: Evidence, policy: Policy) -> dict[str, Any]:
    """The verdict, as `verdict.json` holds it: pass only if every criterion holds."""
    controls = [outcome_of(control, policy) for control in evidence.controls]
    criteria = [*criteria_of(evidence, policy), *(control.criterion() for control in controls)]
    failed = [criterion for criterion in criteria if not criterion.holds]
    return {
        "version": 7,
        "verdict": PASS if not failed else PERSON if all(criterion.person for criterion in failed) else REFUSE,
        "release": evidence.release,
        "level": policy.level,
        "champion": evidence.champion["outcome"],
        "better": [name for name, difference in evidence.differences.items() if difference.better],
        "criteria": [asdict(criterion) for criterion in criteria],
        "controls": [control.as_json() for control in controls],
        "slices": [
            {"by": slice_.by, "value": slice_.value, "rows": slice_.rows, "span": slice_.span}
            for slice_ in evidence.slices
            if slice_.rows
        ],
        "yardsticks": _beside(evidence.yardsticks),
        "untested": list(evidence.untested),
    }


def _beside(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "metric": found.metric,
        "values": {name: stated(value) for name, value in found.values.items()},
        "value": stated(found.value),
        "best": found.best,
        "notes": list(found.notes),
    }
