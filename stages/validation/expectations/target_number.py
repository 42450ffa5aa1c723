"""What a column of numbers to predict must be: never missing, in range, not constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.validation.expectations.number import around


@dataclass(frozen=True)
class Options:
    """Expectations of a number to predict."""

    min: float | None = None
    max: float | None = None
    min_distinct: int = 2  # distinct values: a constant cannot be learned

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        if self.min_distinct < 1:
            raise ValueError(f"min_distinct must be at least 1, not {self.min_distinct}")


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments."""
    distinct = {"min_value": options.min_distinct, "description": f"number of different values in {column}"}
    suite: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_values_to_not_be_null", {"column": column}),
        ("expect_column_unique_value_count_to_be_between", {"column": column, **distinct}),
    ]
    if options.min is not None or options.max is not None:
        bounds = {"min_value": options.min, "max_value": options.max}
        suite.append(("expect_column_values_to_be_between", {"column": column, **bounds}))
    return suite


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """A range around the numbers."""
    return dict(around(rows[column].dropna()))
