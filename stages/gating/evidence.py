"""The inputs of a verdict: the policy of params.yaml, and the evidence on a candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a criterion is about. One of the first three is what should refuse a control.
THRESHOLD, PARITY, LATENCY = "threshold", "parity", "latency"
COMPARISON, COST, DATA, SLICE, CONTROL = "champion", "cost", "data", "slice", "control"
YARDSTICK = "yardstick"
NO_DIFFERENCE = "no difference"
COMPARED = "against the champion: "  # begins the name of each criterion that needs a champion


@dataclass(frozen=True)
class SliceBounds:
    """The bounds of each slice by one column that has at least `min_rows` rows."""

    thresholds: Mapping[str, Mapping[str, float | None]]
    margins: Mapping[str, float]
    min_rows: int


@dataclass(frozen=True)
class YardstickBounds:
    """Whether to be better than the constant answer, and how much worse than the best simple model; None: any."""

    above_constant: bool = False
    margin: float | None = None


@dataclass(frozen=True)
class Policy:
    """The bounds on a candidate: `gate` in params.yaml. `approval`: the failures that a person may accept."""

    thresholds: Mapping[str, Mapping[str, float | None]]
    margins: Mapping[str, float]
    level: float
    p99_ms: float
    approval: Sequence[str] = ()
    slices: Mapping[str, SliceBounds] = field(default_factory=dict)
    yardsticks: YardstickBounds = YardstickBounds()


@dataclass(frozen=True)
class Estimate:
    """A metric of the served answers, and the ends of its interval; NaN if it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Difference:
    """By how much a metric is better than the champion's on the same samples; less than 0 is worse.

    `low`: the lower end of its one-sided interval at the level of the policy. `error`: its standard error if both
    models were equally good. `theirs`: the champion's value.
    """

    value: float
    low: float
    error: float
    samples: int
    theirs: float = math.nan

    @property
    def is_finite(self) -> bool:
        """Whether the value, its lower end and its error are finite numbers."""
        return all(map(math.isfinite, (self.value, self.low, self.error)))

    @property
    def better(self) -> bool:
        """Whether it is better than the champion's by more than chance, at the level of the policy."""
        return self.is_finite and self.low > 0


@dataclass(frozen=True)
class Figure:
    """Another measured value with its upper bound `most`; `about`: the kind of criterion that it makes.

    `reason`: a sentence for when the value is over the bound, or is not a number. `note`: why it is not judged; empty
    if it is. `stated`: False if it differs from run to run, as times do; the verdict then leaves it out.
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
    """The test rows whose `by` is `value`. Without rows: only the champion's test split had some.

    `span`: the smallest and the largest value, of numbers. `undefined`: the metrics that these rows do not define, such
    as those of a class that none of them has.
    """

    by: str
    value: str
    rows: int
    measured: Mapping[str, Estimate] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    undefined: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """A metric of the served answers, `value`, beside the `values` of simple models by name, on the same rows.

    `best`: the simple model that was chosen on the val split. `gain`: by how much we are better than the constant
    answer; `lag`: by how much the best is better than we are; None if the rows do not define it.
    """

    metric: str
    value: float
    values: Mapping[str, float]
    best: str
    rows: int
    gain: Difference | None
    lag: Difference | None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Evidence:
    """All evidence on a candidate. `champion`: the report of the `challenge` stage, its `state` and a sentence.

    `untested`: the classes that no test row has.
    """

    release: str
    measured: Mapping[str, Estimate]
    checks: Sequence[Mapping[str, Any]]
    p99_ms: float
    champion: Mapping[str, Any]
    differences: Mapping[str, Difference] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    slices: Sequence[Slice] = ()
    controls: Sequence[ControlEvidence] = ()
    yardsticks: Comparison | None = None
    untested: Sequence[str] = ()


@dataclass(frozen=True)
class ControlEvidence:
    """A control and the evidence on it; None if it cannot be made, with the reason in `inapplicable`."""

    name: str
    what: str
    expected: str
    evidence: Evidence | None
    inapplicable: str = ""
