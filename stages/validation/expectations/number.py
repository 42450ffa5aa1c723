"""What a number column must be: in range, with enough distinct values, and not missing too often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """Expectations of a column of numbers."""

    min: float | None = None
    max: float | None = None
    unique: bool = False  # no number in two rows
    min_distinct: int | None = None  # distinct numbers
    max_missing: float = 0.5  # share of rows

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        if self.min_distinct is not None and self.min_distinct < 1:
            raise ValueError(f"min_distinct must be at least 1, not {self.min_distinct}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be between 0 and 1, not {self.max_missing}")


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments."""
    present = {"min_value": 1 - options.max_missing, "description": f"share of rows with {column}"}
    distinct = {"min_value": options.min_distinct, "description": f"number of different values in {column}"}
    suite: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_proportion_of_non_null_values_to_be_between", {"column": column, **present})
    ]
    if options.min is not None or options.max is not None:
        bounds = {"min_value": options.min, "max_value": options.max}
        suite.append(("expect_column_values_to_be_between", {"column": column, **bounds}))
    if options.unique:
        suite.append(("expect_column_values_to_be_unique", {"column": column}))
    if options.min_distinct is not None:
        suite.append(("expect_column_unique_value_count_to_be_between", {"column": column, **distinct}))
    return suite


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """A range around the numbers, and a share of missing ones."""
    missing = min(1.0, round(float(rows[column].isna().mean()) + 0.05, 2))
    return {**around(rows[column].dropna()), "max_missing": missing}


def around(known: Any) -> dict[str, float]:
    """`min` and `max`, round numbers at least a tenth of the range of `known` [N] below and above it; {} if N is 0.

    They do not allow a sign that no number has, and are whole if all numbers are.
    """
    if not len(known):
        return {}
    low, high = float(known.min()), float(known.max())
    margin = (high - low) / 10 or abs(high) / 10 or 1.0
    digits = -math.floor(math.log10(margin))
    if (known % 1 == 0).all():
        digits = min(0, digits)
    step = 10.0**-digits
    # rounded first, so that an error in the last bit does not add a step
    least = round(math.floor(round((low - margin) / step, 6)) * step, digits)
    most = round(math.ceil(round((high + margin) / step, 6)) * step, digits)
    ends = {"min": max(0.0, least) if low >= 0 else least, "max": min(0.0, most) if high <= 0 > low else most}
    return {name: int(end) if end == int(end) and abs(end) < 2**53 else end for name, end in ends.items()}
