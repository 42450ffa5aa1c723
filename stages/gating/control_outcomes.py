"""Whether each control was refused for the reason that was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from stages.gating.criteria import Criterion, criteria_of
from stages.gating.evidence import (
    COMPARED,
    CONTROL,
    LATENCY,
    NO_DIFFERENCE,
    PARITY,
    THRESHOLD,
    YARDSTICK,
    ControlEvidence,
    Policy,
)


@dataclass(frozen=True)
class ControlOutcome:
    """What a control was, what was `expected` to refuse it, and what happened.

    `outcome`: "refused" for the expected reason; "passed"; "another reason"; "no difference"; "a difference"; or "not
    applicable". `explanation`: why it does not hold or is not applicable. `scored`: its value in each criterion that
    should refuse it.
    """

    name: str
    what: str
    expected: str
    outcome: str
    holds: bool
    explanation: str = ""
    scored: Mapping[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As `controls` of the verdict lists it."""
        return {
            "name": self.name,
            "what": self.what,
            "expected": self.expected,
            "outcome": self.outcome,
            "holds": self.holds,
            "told": self.explanation,
            "scored": dict(self.scored),
        }

    def criterion(self) -> Criterion:
        """The control as a criterion of the candidate."""
        bound = NO_DIFFERENCE if self.expected == NO_DIFFERENCE else f"refused by {self.expected}"
        name = f"control: {self.name}"
        note = f"{name}: {self.outcome}, {self.explanation}" if self.outcome == "not applicable" else ""
        reason = "" if self.holds else self.explanation
        return Criterion(CONTROL, name, bound, None, self.holds, reason, note=note)


def outcome_of(control: ControlEvidence, policy: Policy) -> ControlOutcome:
    """Judge a control by the criteria of the candidate. Without thresholds, yardsticks must refuse wrong answers."""
    relative = control.expected == THRESHOLD and not policy.thresholds and policy.yardsticks.above_constant
    control = replace(control, expected=YARDSTICK) if relative else control
    outcome = partial(ControlOutcome, control.name, control.what, control.expected)
    if control.evidence is None or (control.expected == THRESHOLD and not policy.thresholds):
        return outcome("not applicable", True, control.inapplicable or "gate.thresholds is empty")
    criteria = criteria_of(control.evidence, policy)
    failed = [criterion for criterion in criteria if not criterion.holds]
    if control.expected == NO_DIFFERENCE:
        differences = control.evidence.differences
        different = [name for name, difference in differences.items() if difference.value != 0 or difference.better]
        compared = {f"{COMPARED}{name}": name for name in differences}
        different += [compared[criterion.name] for criterion in failed if criterion.name in compared]
        if not different:
            return outcome(NO_DIFFERENCE, True)
        names = ", ".join(dict.fromkeys(different))
        explanation = f"{control.what} compared with itself differs in {names}: the comparison with champions is wrong"
        return outcome("a difference", False, explanation)
    expected = [criterion for criterion in criteria if criterion.about == control.expected]
    scored = {criterion.name: criterion.value for criterion in expected}
    if not all(criterion.holds for criterion in expected):
        return outcome("refused", True, "", scored)
    explanation = _too_weak(control, scored, policy)
    if failed:
        reasons = "; ".join(criterion.reason for criterion in failed)
        explanation += f"; it is refused only for another reason: {reasons}"
        return outcome("another reason", False, explanation, scored)
    return outcome("passed", False, explanation, scored)


def _too_weak(control: ControlEvidence, scored: Mapping[str, float | None], policy: Policy) -> str:
    """Name the bound that lets a bad candidate pass, and what to change."""
    if control.expected == LATENCY:
        return f"gate.p99_ms: {policy.p99_ms:g} would pass {control.what}: lower it"
    if control.expected == PARITY:
        cause = "all answers are equal, or the comparison is wrong"
        return f"no check distinguishes {control.what} from the checkpoint: {cause}"
    if control.expected == YARDSTICK:
        scores = ", ".join(f"{name} {value:+.4f}" for name, value in scored.items() if value is not None)
        return f"gate.yardsticks would pass {control.what} ({scores}): lower the margin, or set gate.thresholds too"
    bounds: list[str] = []
    ends: set[str] = set()
    for name, bound in policy.thresholds.items():
        limits = {end: limit for end, limit in bound.items() if limit is not None}
        bounds.append(f"{name}: {{{', '.join(f'{end}: {limit:g}' for end, limit in limits.items())}}}")
        ends |= limits.keys()
    action = "tighten" if len(ends) > 1 else "raise" if "min" in ends else "lower"
    scores = ", ".join(f"{name} {value:.4f}" for name, value in scored.items() if value is not None)
    which = "it" if len(bounds) == 1 else "one"
    return f"{' and '.join(bounds)} would pass {control.what} ({scores}): {action} {which}, or bound another metric too"
