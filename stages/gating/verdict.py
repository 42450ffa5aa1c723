"""From evidence to verdict: a pure and total function. All criteria must hold.

Each comparison is made at the stated level, with no correction for their number, since a candidate passes only if it
passes every one (an intersection-union test: Berger, "Multiparameter hypothesis testing and acceptance sampling",
Technometrics 1982). Where only criteria fail that the policy leaves to a person, the verdict is "needs a person".

Controls are held to the same criteria: candidates that are bad on purpose, and the candidate beside itself. Under
`controls` the verdict says of each: `name`; `what` it is; what is `expected`, namely what should refuse it (what
criteria are `about`) or "no difference"; the `outcome` ("refused", for that reason; "passed"; "another reason"; "no
difference"; "a difference"; "not applicable"); whether that `holds`; `told`, why not or not applicable; and what it
`scored` by the criteria that should refuse it, {criterion: value}. One that does not hold refuses.

Slices are the test rows of one value, or of a range of numbers, under a column. Each must hold the same criteria with
bounds of its own, as reliably as its `rows` tell; one of fewer than are asked for is not judged, and says so. What the
champion was judged on and the data have no more is told. `slices` lists all that there were, with `rows` and, of
numbers, their `span`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from statistics import NormalDist
from typing import Any

from stages.core.words import nearest

PASS, REFUSE, PERSON = "pass", "refuse", "needs a person"
# what criteria are about; the first three may be expected to refuse a control
THRESHOLD, PARITY, LATENCY = "threshold", "parity", "latency"
COMPARISON, COST, DATA, SLICE, CONTROL = "champion", "cost", "data", "slice", "control"
NO_DIFFERENCE = "no difference"
COMPARED = "against the champion: "  # begins the name of each criterion that needs one
ADVICE = ": see the worst mistakes in the report, and mend the data or the training, or change gate.thresholds"
MANY = 1000.0  # times; a sample size beyond its square is no advice
POWER = 0.8  # how often a candidate as good as the champion should pass


@dataclass(frozen=True)
class OfSlices:
    """What is asked of each slice by one column that has at least so many rows."""

    thresholds: Mapping[str, Mapping[str, float | None]]
    margins: Mapping[str, float]
    min_rows: int


@dataclass(frozen=True)
class Policy:
    """What is asked of a candidate: `gate` in params.yaml. `approval`: what a person may decide instead."""

    thresholds: Mapping[str, Mapping[str, float | None]]
    margins: Mapping[str, float]
    level: float
    p99_ms: float
    approval: Sequence[str] = ()
    slices: Mapping[str, OfSlices] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A metric of the served answers, and the ends of its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Difference:
    """By how much a metric is better than the champion's on the same samples; less than 0 is worse.

    `low` is what it falls below at the stated level only; `error` is its standard error, were both equally good;
    `theirs` the champion's value.
    """

    value: float
    low: float
    error: float
    samples: int
    theirs: float = math.nan

    @property
    def told(self) -> bool:
        """Whether every figure is a number."""
        return all(map(math.isfinite, (self.value, self.low, self.error)))

    @property
    def better(self) -> bool:
        """Whether it is better than the champion's by more than chance, at the stated level."""
        return self.told and self.low > 0


@dataclass(frozen=True)
class Figure:
    """Something else that was measured, and the most that it may be; `about`: what kind of thing it is.

    `reason`: a sentence for when it is more, or is not a number. `note`: why it is not judged, if it is not.
    `stated`: False where it differs from run to run, as times do.
    """

    about: str
    name: str
    value: float
    most: float
    reason: str
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    stated: bool = True


@dataclass(frozen=True)
class Slice:
    """The test rows whose `by` is `value`. With no rows: the champion had some. `span`: the ends, of numbers.

    `undefined`: metrics that they do not define, such as those of a label that none of them has.
    """

    by: str
    value: str
    rows: int
    measured: Mapping[str, Estimate] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    undefined: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Evidence:
    """All that a verdict rests on. `champion`: how `challenge` found it, one of its states with a sentence."""

    release: str
    measured: Mapping[str, Estimate]
    checks: Sequence[Mapping[str, Any]]
    p99_ms: float
    champion: Mapping[str, Any]
    differences: Mapping[str, Difference] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    slices: Sequence[Slice] = ()
    controls: Sequence[Tried] = ()


@dataclass(frozen=True)
class Tried:
    """A control, and the evidence on it; None where there can be none, with the reason in `inapplicable`."""

    name: str
    what: str
    expected: str
    evidence: Evidence | None
    inapplicable: str = ""


@dataclass(frozen=True)
class Control:
    """How a control fared: see above."""

    name: str
    what: str
    expected: str
    outcome: str
    holds: bool
    told: str = ""
    scored: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Criterion:
    """One reason to pass or to refuse. `value` is None where stating it would make equal outcomes differ.

    `limits`: the least and the largest value that hold, None where there is no such end. `champion`: its value, where
    two are compared. `person`: whether one may decide, should it not hold. `part`: of a slice, its column and value;
    `rows`: how many it has.
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


def judge(evidence: Evidence, policy: Policy) -> dict[str, Any]:
    """The verdict: pass only if every criterion holds. What cannot be judged does not hold."""
    controls = [_control(tried, policy) for tried in evidence.controls]
    criteria = [*_judged(evidence, policy), *map(_bitten, controls)]
    failed = [criterion for criterion in criteria if not criterion.holds]
    return {
        "version": 6,
        "verdict": PASS if not failed else PERSON if all(criterion.person for criterion in failed) else REFUSE,
        "release": evidence.release,
        "level": policy.level,
        "champion": evidence.champion["outcome"],
        "better": [name for name, each in evidence.differences.items() if each.better],
        "criteria": [asdict(criterion) for criterion in criteria],
        "controls": [asdict(control) for control in controls],
        "slices": [
            {"by": each.by, "value": each.value, "rows": each.rows, "span": each.span}
            for each in evidence.slices
            if each.rows
        ],
    }


def _judged(evidence: Evidence, policy: Policy) -> list[Criterion]:
    """All criteria but the controls."""
    criteria = chain(
        _thresholds(evidence.measured, policy.thresholds, ADVICE),
        _served(evidence.checks),
        [_latency(evidence.p99_ms, policy.p99_ms)],
        _lost(evidence.champion),
        _against(evidence.champion, evidence.differences, policy.margins, policy.level),
        _sliced(evidence, policy),
        map(_bounded, evidence.figures),
    )
    return [replace(each, person=not {each.about, each.name}.isdisjoint(policy.approval)) for each in criteria]


def _thresholds(
    measured: Mapping[str, Estimate], bounds: Mapping[str, Mapping[str, float | None]], advice: str = ""
) -> Iterator[Criterion]:
    if not bounds:
        reason = "gate.thresholds in params.yaml is empty: nothing could be refused"
        yield Criterion(CONTROL, "thresholds", "at least one", 0.0, False, reason)
    for name, bound in bounds.items():
        low, high = bound["min"], bound["max"]
        limits = ("at least", low), ("at most", high)
        said = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
        if name not in measured:
            yield Criterion(THRESHOLD, name, said, None, False, f"there is no metric {name!r}{nearest(name, measured)}")
            continue
        value = measured[name].value
        holds = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        reason = "" if holds else f"{name} is {_apart(value, low, high)}, which is not {said}{advice}"
        ends = (measured[name].low, measured[name].high)
        yield Criterion(THRESHOLD, name, said, _stated(value), holds, reason, _interval(*ends), limits=(low, high))


def _served(checks: Sequence[Mapping[str, Any]]) -> Iterator[Criterion]:
    if not checks:
        yield Criterion(PARITY, "served", "as the checkpoint", None, False, "no answer was held against it")
    for check in checks:
        reason = "the served answers are not the checkpoint's: parity.json tells by how much"
        if check["holds"]:
            reason = ""
        elif check["max_delta"] is None:
            reason = f"this does not hold of the served answers: {check['name']}"
        name = f"served: {check['name']}"
        yield Criterion(PARITY, name, "as the checkpoint", check["max_delta"], check["holds"], reason)


def _latency(p99_ms: float, bound_ms: float) -> Criterion:
    fast = p99_ms <= bound_ms
    reason = "" if fast else "one sample takes longer than gate.p99_ms allows: train a smaller network, or raise it"
    limits = None, _stated(bound_ms)
    return Criterion(LATENCY, "latency p99", f"at most {bound_ms:g} ms", None, fast, reason, limits=limits)


def _lost(champion: Mapping[str, Any]) -> Iterator[Criterion]:
    if champion["state"] == "lost":
        yield Criterion(COMPARISON, f"{COMPARED}answers", "needed", None, False, champion["outcome"])


def _against(
    champion: Mapping[str, Any],
    differences: Mapping[str, Difference],
    margins: Mapping[str, float],
    level: float,
    key: str = "gate.margins",
) -> Iterator[Criterion]:
    """No worse than the champion by more than the margin, in each metric; where it can be asked."""
    if champion["state"] != "answers":
        return
    for name, margin in margins.items():
        said = f"at most {margin:g} worse"
        if name not in differences or not differences[name].told:
            yield Criterion(COMPARISON, f"{COMPARED}{name}", said, None, False, f"{name} cannot be told of both models")
            continue
        difference = differences[name]
        needed = difference.error * sum(map(NormalDist().inv_cdf, (1 - level, POWER)))
        tells = needed <= margin
        holds = (difference.low if tells else difference.value) >= -margin
        note = "" if tells else _too_few(name, difference.samples, margin, needed)
        reason = ""
        if not holds:
            value, low = _apart(abs(difference.value), margin), _apart(-difference.low, margin)
            possibly = f", and may be by {low}" if tells and difference.low < difference.value else ""
            than = f"{'worse' if difference.value < 0 else 'better'} by {value}"
            reason = f"{name} is {than} than the champion's{possibly}; {key} allows {margin:g}"
        yield Criterion(
            COMPARISON,
            f"{COMPARED}{name}",
            said,
            _stated(difference.value),
            holds,
            reason,
            _interval(difference.low, math.inf),
            note,
            limits=(-margin, None),
            champion=_stated(difference.theirs),
        )


def _sliced(evidence: Evidence, policy: Policy) -> Iterator[Criterion]:
    """Each slice by the same criteria as the whole, with bounds of its own."""
    for by, asked in policy.slices.items():
        found = [each for each in evidence.slices if each.by == by]
        if not any(each.rows for each in found):
            note = f"no test row tells its {by}: gate.slices.{by} asks for nothing"
            yield Criterion(SLICE, f"slices by {by}", "at least one", None, True, note=note, rows=0)
        for each in found:
            criteria = _of_slice(each, asked, evidence.champion, policy.level)
            yield from (replace(one, about=SLICE, part=(by, each.value), rows=each.rows) for one in criteria)


def _of_slice(each: Slice, asked: OfSlices, champion: Mapping[str, Any], level: float) -> Iterator[Criterion]:
    where, key, enough = f"where {each.by} is {each.value}", f"gate.slices.{each.by}", f"at least {asked.min_rows} rows"
    if not each.rows:
        note = f"no test row is left {where}, which the champion was judged on"
        yield Criterion(SLICE, f"{COMPARED}{where}", enough, None, True, note=note)
    elif each.rows < asked.min_rows:
        note = f"the {each.rows:,} test rows {where} are not judged: {key}.min_rows is {asked.min_rows}"
        yield Criterion(SLICE, where, enough, None, True, note=note)
    else:
        for name in sorted(each.undefined & (asked.thresholds.keys() | asked.margins.keys())):
            note = f"{name} is not judged {where}: its {each.rows:,} test rows do not define it"
            yield Criterion(SLICE, f"{name} {where}", "defined", None, True, note=note)
        thresholds, margins = _without(asked.thresholds, each.undefined), _without(asked.margins, each.undefined)
        bounded = _thresholds(each.measured, thresholds) if thresholds else ()
        for one in (*bounded, *_against(champion, each.differences, margins, level, f"{key}.margins")):
            told = f"{where} ({each.rows:,} test rows), {one.reason}: mend or add such rows, or change {key}"
            reason = "" if one.holds else told
            yield replace(one, name=f"{one.name} {where}", reason=reason)


def _without(asked: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: bound for name, bound in asked.items() if name not in names}


def _bounded(figure: Figure) -> Criterion:
    judged = not figure.note
    holds = not judged or figure.value <= figure.most
    return Criterion(
        figure.about,
        figure.name,
        f"at most {figure.most:g}",
        _stated(figure.value) if figure.stated else None,
        holds,
        "" if holds else figure.reason,
        _interval(figure.low, figure.high) if figure.stated else None,
        figure.note,
        limits=(None, _stated(figure.most)),
    )


def _control(tried: Tried, policy: Policy) -> Control:
    """How one fares before the same criteria."""
    fared = partial(Control, tried.name, tried.what, tried.expected)
    if tried.evidence is None or (tried.expected == THRESHOLD and not policy.thresholds):
        return fared("not applicable", True, tried.inapplicable or "gate.thresholds is empty")
    criteria = _judged(tried.evidence, policy)
    refusing = [criterion for criterion in criteria if not criterion.holds]
    if tried.expected == NO_DIFFERENCE:
        other = [name for name, each in tried.evidence.differences.items() if each.value != 0 or each.better]
        compared = {f"{COMPARED}{name}": name for name in tried.evidence.differences}
        other += [compared[each.name] for each in refusing if each.name in compared]
        names = ", ".join(dict.fromkeys(other))
        told = f"{tried.what} is not found to be as good as itself in {names}: the comparison with champions is wrong"
        return fared("a difference", False, told) if other else fared(NO_DIFFERENCE, True)
    own = [criterion for criterion in criteria if criterion.about == tried.expected]
    scored = {criterion.name: criterion.value for criterion in own}
    if not all(criterion.holds for criterion in own):
        return fared("refused", True, "", scored)
    loose = _loose(tried, scored, policy)
    if refusing:
        reasons = "; ".join(criterion.reason for criterion in refusing)
        return fared("another reason", False, f"{loose}; it is refused for another reason alone: {reasons}", scored)
    return fared("passed", False, loose, scored)


def _loose(tried: Tried, scored: Mapping[str, float | None], policy: Policy) -> str:
    """What lets a bad candidate through, and what to do about it."""
    if tried.expected == LATENCY:
        return f"gate.p99_ms: {policy.p99_ms:g} would pass {tried.what}: lower it"
    if tried.expected == PARITY:
        return f"nothing tells {tried.what} from the checkpoint: all answers are alike, or the comparison is wrong"
    found, ends = [], set()
    for name, bound in policy.thresholds.items():
        given = {end: limit for end, limit in bound.items() if limit is not None}
        found.append(f"{name}: {{{', '.join(f'{end}: {limit:g}' for end, limit in given.items())}}}")
        ends |= given.keys()
    do = "tighten" if len(ends) > 1 else "raise" if "min" in ends else "lower"
    scores = ", ".join(f"{name} {value:.4f}" for name, value in scored.items() if value is not None)
    one = "it" if len(found) == 1 else "one"
    return f"{' and '.join(found)} would pass {tried.what} ({scores}): {do} {one}, or bound another metric too"


def _bitten(control: Control) -> Criterion:
    """A control as a criterion of the candidate."""
    bound = NO_DIFFERENCE if control.expected == NO_DIFFERENCE else f"refused by {control.expected}"
    name = f"control: {control.name}"
    note = f"{name}: {control.outcome}, {control.told}" if control.outcome == "not applicable" else ""
    reason = "" if control.holds else control.told
    return Criterion(CONTROL, name, bound, None, control.holds, reason, note=note)


def _too_few(name: str, samples: int, margin: float, needed: float) -> str:
    """What would have to be otherwise for a model as good as the champion to pass four times in five."""
    times = (needed / margin) if margin else math.inf
    more = f"about {math.ceil(samples * times**2):,} samples or " if times < MANY else ""
    return (
        f"{samples:,} test samples do not tell a margin of {margin:g}: {more}a margin of {_up(needed):g} would do."
        f" {name} is judged by its value alone"
    )


def _up(value: float) -> float:
    """To two digits that count, never down."""
    if not 0 < value < math.inf:
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step) * step:.2g}") if step else value


def _apart(value: float, *limits: float | None) -> str:
    """With four decimals, or as many as tell it from its limits."""
    told = (f"{value:.{decimals}f}" for decimals in range(4, 17))
    return next((said for said in told if float(said) not in limits), repr(value))


def _stated(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _interval(low: float, high: float) -> tuple[float | None, float | None] | None:
    ends = _stated(low), _stated(high)
    return ends if any(end is not None for end in ends) else None
