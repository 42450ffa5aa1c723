"""What may stand under `gate` in `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from stages.core.words import nearest
from stages.settings.section import Positive, Section, Share

Margin = Annotated[float, Field(ge=0)]

# What criteria may be about that a person may decide, beside each of `gate.thresholds`: not whether a gate is a gate.
APPROVABLE = ("threshold", "latency", "champion", "cost", "slice", "robustness", "data")


class Bound(Section):
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        return self


class Change(Section):
    """`max_moved`: how far an answer may move on average: a probability, or standard deviations of the target."""

    by: Annotated[float, Field(ge=0)] = 0.0
    max_changed: Share
    max_moved: Annotated[float, Field(ge=0)] | None = None


class Drift(Section):
    """The largest distances of `statistics.distance`, beyond what chance makes of so many rows."""

    max_distance: Share
    columns: dict[str, Share]
    train_test: Share
    min_rows: Positive


class Slices(Section):
    """What is asked of each slice by one column that has `min_rows`. Numbers are cut into `bins` of like size.

    Texts are cut like the numbers that they hold where `bins` are said.
    """

    min_rows: Annotated[int, Field(ge=2)] = 30
    bins: Annotated[int, Field(ge=2, le=50)] | None = None
    thresholds: dict[str, Bound] = Field(default_factory=dict)
    margins: dict[str, Margin] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some(self) -> Slices:
        if not self.thresholds and not self.margins:
            raise ValueError("give thresholds, margins or both")
        return self


class Gate(Section):
    thresholds: dict[str, Bound]
    margins: dict[str, Margin]
    slices: dict[str, Slices]
    level: Annotated[float, Field(gt=0, lt=0.5)]
    p99_ms: Annotated[float, Field(gt=0, lt=10_000)]  # a control must be slower, and people wait for it
    max_slower: Annotated[float, Field(gt=0)]
    max_larger: Annotated[float, Field(gt=0)]
    approval: list[str]
    robustness: dict[str, dict[str, Change]]
    max_disagreement: Share
    drift: Drift

    @model_validator(mode="after")
    def _for_a_person(self) -> Gate:
        known = (*APPROVABLE, *self.thresholds)
        for name in self.approval:
            if name not in known:
                raise ValueError(f"approval: {name!r} is nothing that a person can decide{nearest(name, known)}")
        return self
