"""The section `gate` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from stages.core.errors import Invalid
from stages.core.words import nearest
from stages.settings.section import Positive, Section, Share

Margin = Annotated[float, Field(ge=0)]

# The kinds of criteria that a person may approve, besides each of `gate.thresholds`. The gate's controls are not here.
APPROVABLE = ("threshold", "latency", "champion", "cost", "slice", "robustness", "data", "yardstick")


class Bound(Section):
    """The smallest and the largest value allowed; at least one of them."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Bound:
        if self.min is None and self.max is None:
            raise Invalid("params-empty-bound", "give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise Invalid("params-crossed-bound", f"min {self.min} is over max {self.max}")
        return self


class Change(Section):
    """`max_moved`: the largest mean change of a prediction: a probability, or in standard deviations of the target."""

    by: Annotated[float, Field(ge=0)] = 0.0
    max_changed: Share
    max_moved: Annotated[float, Field(ge=0)] | None = None


class Drift(Section):
    """The largest values of `stages.tables.distributions.distance` allowed, beyond those expected by chance."""

    max_distance: Share
    columns: dict[str, Share]
    train_test: Share
    min_rows: Positive


class Slices(Section):
    """Bounds for each slice by one column with at least `min_rows`. Numbers are cut into `bins` of about equal size.

    A column of texts is cut as numbers if `bins` is given.
    """

    min_rows: Annotated[int, Field(ge=2)] = 30
    bins: Annotated[int, Field(ge=2, le=50)] | None = None
    thresholds: dict[str, Bound] = Field(default_factory=dict)
    margins: dict[str, Margin] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some(self) -> Slices:
        if not self.thresholds and not self.margins:
            raise Invalid("params-empty-bound", "give thresholds, margins or both")
        return self


class Yardsticks(Section):
    """Bounds relative to simple models on the same test rows. `margin`: null compares with none."""

    above_constant: bool
    margin: Margin | None


class Gate(Section):
    """The criteria of a release."""

    thresholds: dict[str, Bound]
    margins: dict[str, Margin]
    slices: dict[str, Slices]
    level: Annotated[float, Field(gt=0, lt=0.5)]
    p99_ms: Annotated[float, Field(gt=0, lt=10_000)]  # bounded, because a control has to be slower
    max_slower: Annotated[float, Field(gt=0)]
    max_larger: Annotated[float, Field(gt=0)]
    approval: list[str]
    robustness: dict[str, dict[str, Change]]
    max_disagreement: Share
    drift: Drift
    yardsticks: Yardsticks

    @model_validator(mode="after")
    def _for_a_person(self) -> Gate:
        known = (*APPROVABLE, *self.thresholds)
        for name in self.approval:
            if name not in known:
                raise Invalid(
                    "params-unknown-criterion",
                    f"approval: {name!r} is not a criterion that can be approved{nearest(name, known)}",
                )
        return self
