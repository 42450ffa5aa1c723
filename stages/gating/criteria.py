"""Each criterion of a verdict, from evidence and policy. A value that cannot be judged does not hold.

Each comparison is made at the level of the policy, with no correction for their number, since a candidate passes only
if it passes every one (an intersection-union test: Berger, "Multiparameter hypothesis testing and acceptance sampling",
Technometrics 1982).

Slices are the test rows with one value, or a range of numbers, in a column. Each must hold the same criteria with
bounds of its own. A slice of fewer rows than `min_rows` is not judged, and a note says so; another note names each
slice that the champion was judged on and that the test split no longer has.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import NormalDist
from typing import Any

from stages.core.words import nearest
from stages.evaluation.yardsticks import CONSTANT, NAMES
from stages.gating import wording
from stages.gating.evidence import (
    COMPARED,
    COMPARISON,
    CONTROL,
    LATENCY,
    PARITY,
    SLICE,
    THRESHOLD,
    YARDSTICK,
    Comparison,
    Difference,
    Estimate,
    Evidence,
    Figure,
    Policy,
    Slice,
    SliceBounds,
    YardstickBounds,
)

ADVICE = ": see the worst mistakes in the report, and fix the data or the training, or change gate.thresholds"
MANY = 5  # names in a sentence
POWER = 0.8  # how often a candidate as good as the champion should pass


@dataclass(frozen=True)
class Criterion:
    """One reason to pass or to refuse. `value` is None if stating it would make equal outcomes differ.

    `limits`: the smallest and the largest value that hold, None if there is no such limit. `champion`: its value, of
    a comparison. `person`: whether a person may accept the failure. `part`: the column and the value of a slice;
    `rows`: the number of its rows.
    """

    about: str
    name: str
    bound: str
    value: float | None
    holds: bool
    reason: str = ""
    interval: tuple[float | None, float | None] | None = None
    note: str = ""
    limits: tuple[float | None, float | None] | None = None
    champion: float | None = None
    person: bool = False
    part: tuple[str, str] | None = None
    rows: int | None = None


def criteria_of(evidence: Evidence, policy: Policy) -> list[Criterion]:
    """All criteria of a candidate, or of a control, without those about its controls."""
    criteria = chain(
        _thresholds(evidence.measured, policy.thresholds, ADVICE),
        _something_refuses(policy),
        _untested(evidence.untested),
        _yardsticks(evidence.yardsticks, policy.yardsticks),
        _parity(evidence.checks),
        [_latency(evidence.p99_ms, policy.p99_ms)],
        _lost_champion(evidence.champion),
        _comparisons(evidence.champion, evidence.differences, policy.margins, policy.level),
        _slices(evidence, policy),
        map(_bounded, evidence.figures),
    )
    return [
        replace(criterion, person=not {criterion.about, criterion.name}.isdisjoint(policy.approval))
        for criterion in criteria
    ]


def _thresholds(
    measured: Mapping[str, Estimate], bounds: Mapping[str, Mapping[str, float | None]], advice: str = ""
) -> Iterator[Criterion]:
    for name, bound in bounds.items():
        low, high = bound["min"], bound["max"]
        limits = ("at least", low), ("at most", high)
        text = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
        if name not in measured:
            yield Criterion(THRESHOLD, name, text, None, False, f"there is no metric {name!r}{nearest(name, measured)}")
            continue
        value = measured[name].value
        holds = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        reason = "" if holds else f"{name} is {wording.distinct(value, low, high)}, which is not {text}{advice}"
        ends = wording.interval(measured[name].low, measured[name].high)
        yield Criterion(THRESHOLD, name, text, wording.stated(value), holds, reason, ends, limits=(low, high))


def _something_refuses(policy: Policy) -> Iterator[Criterion]:
    if not policy.thresholds and not policy.yardsticks.above_constant:
        reason = (
            "gate.thresholds in params.yaml is empty, and gate.yardsticks.above_constant is false: nothing could be"
        )
        yield Criterion(CONTROL, "thresholds", "at least one", 0.0, False, f"{reason} refused")


def _untested(labels: Sequence[str]) -> Iterator[Criterion]:
    if labels:
        names = ", ".join(labels[:MANY]) + (f" and {len(labels) - MANY:,} more" if len(labels) > MANY else "")
        remedy = "add such rows, or set split: {by: strata}"
        note = f"no test row is labeled {names}: nothing is known about the predictions for such rows; {remedy}"
        yield Criterion(THRESHOLD, "classes with test rows", "all", None, True, note=note)


def _yardsticks(found: Comparison | None, bounds: YardstickBounds) -> Iterator[Criterion]:
    """Better than the constant answer, and not worse than the best simple model by more than the margin.

    A gain must be shown, a lag as well: the interval that lies above zero, or beyond the margin, decides.
    """
    if found is None:
        return
    if bounds.above_constant:
        gain, bound = found.gain, "by more than chance"
        name = f"{found.metric} over {NAMES[CONSTANT]}'s"
        holds = gain is not None and gain.better
        reason = "" if holds else f"{wording.not_above(found)}; {wording.reachable(found)}"
        yield _of_difference(name, bound, gain, holds, reason, low=True, limit=0.0)
    if bounds.margin is not None:
        lag = found.lag
        holds = lag is not None and lag.is_finite and lag.low <= bounds.margin
        reason = "" if holds else wording.behind(found, bounds.margin)
        note = wording.unsure(found, bounds.margin) if holds and lag and lag.value > bounds.margin else ""
        name, bound = f"{found.metric} over {NAMES[found.best]}'s", f"at most {bounds.margin:g} worse"
        yield _of_difference(name, bound, lag, holds, reason, low=False, limit=-bounds.margin, note=note)


def _of_difference(
    name: str, bound: str, found: Difference | None, holds: bool, reason: str, low: bool, limit: float, note: str = ""
) -> Criterion:
    """`low`: whether the difference is ours from theirs, with its lower end; else theirs from ours."""
    if found is None or not found.is_finite:
        return Criterion(YARDSTICK, name, bound, None, holds, reason, note=note)
    value, ends = (found.value, (found.low, math.inf)) if low else (-found.value, (-math.inf, -found.low))
    limits = (limit, None)
    return Criterion(
        YARDSTICK, name, bound, wording.stated(value), holds, reason, wording.interval(*ends), note, limits=limits
    )


def _parity(checks: Sequence[Mapping[str, Any]]) -> Iterator[Criterion]:
    if not checks:
        reason = "no served answer was compared with the checkpoint's"
        yield Criterion(PARITY, "served", "as the checkpoint", None, False, reason)
    for check in checks:
        reason = "the served answers differ from the checkpoint's: parity.json says by how much"
        if check["holds"]:
            reason = ""
        elif check["max_delta"] is None:
            reason = f"this check of the served answers failed: {check['name']}"
        name = f"served: {check['name']}"
        yield Criterion(PARITY, name, "as the checkpoint", check["max_delta"], check["holds"], reason)


def _latency(p99_ms: float, bound_ms: float) -> Criterion:
    fast = p99_ms <= bound_ms
    reason = "" if fast else "one sample takes longer than gate.p99_ms allows: train a smaller network, or raise it"
    limits = None, wording.stated(bound_ms)
    return Criterion(LATENCY, "latency p99", f"at most {bound_ms:g} ms", None, fast, reason, limits=limits)


def _lost_champion(champion: Mapping[str, Any]) -> Iterator[Criterion]:
    if champion["state"] == "lost":
        yield Criterion(COMPARISON, f"{COMPARED}answers", "needed", None, False, champion["outcome"])


def _comparisons(
    champion: Mapping[str, Any],
    differences: Mapping[str, Difference],
    margins: Mapping[str, float],
    level: float,
    key: str = "gate.margins",
) -> Iterator[Criterion]:
    """No worse than the champion by more than the margin, in each metric; nothing if the champion has no answers."""
    if champion["state"] != "answers":
        return
    for name, margin in margins.items():
        bound = f"at most {margin:g} worse"
        if name not in differences or not differences[name].is_finite:
            reason = f"{name} could not be computed for both models"
            yield Criterion(COMPARISON, f"{COMPARED}{name}", bound, None, False, reason)
            continue
        difference = differences[name]
        needed = difference.error * sum(map(NormalDist().inv_cdf, (1 - level, POWER)))
        enough = needed <= margin
        holds = (difference.low if enough else difference.value) >= -margin
        note = "" if enough else wording.too_few(name, difference.samples, margin, needed)
        reason = ""
        if not holds:
            value, low = wording.distinct(abs(difference.value), margin), wording.distinct(-difference.low, margin)
            possibly = f", and may be by {low}" if enough and difference.low < difference.value else ""
            than = f"{'worse' if difference.value < 0 else 'better'} by {value}"
            reason = f"{name} is {than} than the champion's{possibly}; {key} allows {margin:g}"
        yield Criterion(
            COMPARISON,
            f"{COMPARED}{name}",
            bound,
            wording.stated(difference.value),
            holds,
            reason,
            wording.interval(difference.low, math.inf),
            note,
            limits=(-margin, None),
            champion=wording.stated(difference.theirs),
        )


def _slices(evidence: Evidence, policy: Policy) -> Iterator[Criterion]:
    """The same criteria for each slice, with the bounds of its column."""
    for by, bounds in policy.slices.items():
        slices = [slice_ for slice_ in evidence.slices if slice_.by == by]
        if not any(slice_.rows for slice_ in slices):
            note = f"no test row has a value of {by}: gate.slices.{by} checks nothing"
            yield Criterion(SLICE, f"slices by {by}", "at least one", None, True, note=note, rows=0)
        for slice_ in slices:
            criteria = _of_slice(slice_, bounds, evidence.champion, policy.level)
            yield from (
                replace(criterion, about=SLICE, part=(by, slice_.value), rows=slice_.rows) for criterion in criteria
            )


def _of_slice(slice_: Slice, bounds: SliceBounds, champion: Mapping[str, Any], level: float) -> Iterator[Criterion]:
    where, key = f"where {slice_.by} is {slice_.value}", f"gate.slices.{slice_.by}"
    enough = f"at least {bounds.min_rows} rows"
    if not slice_.rows:
        note = f"there is no test row {where}, a slice that the champion was judged on"
        yield Criterion(SLICE, f"{COMPARED}{where}", enough, None, True, note=note)
    elif slice_.rows < bounds.min_rows:
        note = f"the {slice_.rows:,} test rows {where} are not judged: {key}.min_rows is {bounds.min_rows}"
        yield Criterion(SLICE, where, enough, None, True, note=note)
    else:
        for name in sorted(slice_.undefined & (bounds.thresholds.keys() | bounds.margins.keys())):
            note = f"{name} is not judged {where}: its {slice_.rows:,} test rows do not define it"
            yield Criterion(SLICE, f"{name} {where}", "defined", None, True, note=note)
        thresholds = _without(bounds.thresholds, slice_.undefined)
        margins = _without(bounds.margins, slice_.undefined)
        criteria = [*_thresholds(slice_.measured, thresholds)]
        criteria += _comparisons(champion, slice_.differences, margins, level, f"{key}.margins")
        for criterion in criteria:
            rows = f"{where} ({slice_.rows:,} test rows)"
            reason = f"{rows}, {criterion.reason}: fix or add such rows, or change {key}"
            yield replace(criterion, name=f"{criterion.name} {where}", reason="" if criterion.holds else reason)


def _without(bounds: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: bound for name, bound in bounds.items() if name not in names}


def _bounded(figure: Figure) -> Criterion:
    judged = not figure.note
    holds = not judged or figure.value <= figure.most
    return Criterion(
        figure.about,
        figure.name,
        f"at most {figure.most:g}",
        wording.stated(figure.value) if figure.stated else None,
        holds,
        "" if holds else figure.reason,
        wording.interval(figure.low, figure.high) if figure.stated else None,
        figure.note,
        limits=(None, wording.stated(figure.most)),
    )
