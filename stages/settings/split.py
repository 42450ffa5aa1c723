"""The section `split` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from stages.core.errors import Invalid
from stages.core.words import nearest
from stages.settings.section import Section

# `split.by` -> what `split.column` holds; "" if that split has no column.
SPLITS = {"hash": "", "strata": "", "group": "the group", "time": "the time", "column": "the name of the split"}


class Split(Section):
    """How the rows are split."""

    by: str
    column: str
    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        if by not in SPLITS:
            raise Invalid("params-unknown-split", f"there is no split by {by!r}{nearest(by, SPLITS)}")
        return by

    @model_validator(mode="after")
    def _named(self) -> Split:
        held = SPLITS[self.by]
        if held and self.column in ("", "none"):
            raise Invalid(
                "params-split-column",
                f"split.column must name the column that holds {held}, since split.by is {self.by}",
            )
        if not held and self.column != "none":
            raise Invalid(
                "params-split-column",
                f"split.column is {self.column!r}, which a split by {self.by} does not use: set it to none",
            )
        return self

    @model_validator(mode="after")
    def _some_left(self) -> Split:
        if self.val + self.test >= 1:
            raise Invalid("params-no-training-rows", f"val {self.val} and test {self.test} leave no rows to train on")
        return self
