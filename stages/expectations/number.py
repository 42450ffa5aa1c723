"""What a column of numbers must be: in range, and not missing too often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    min: float | None = None
    max: float | None = None
    max_missing: float = 0.5  # share of rows

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be between 0 and 1, not {self.max_missing}")


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments."""
    present = {"min_value": 1 - options.max_missing, "description": f"share of rows with {column}"}
    suite: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_proportion_of_non_null_values_to_be_between", {"column": column, **present})
    ]
    if options.min is not None or options.max is not None:
        bounds = {"min_value": options.min, "max_value": options.max}
        suite.append(("expect_column_values_to_be_between", {"column": column, **bounds}))
    return suite
