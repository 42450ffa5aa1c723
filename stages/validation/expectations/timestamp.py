"""What a timestamp column must be: in a range of years, and not missing too often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """Expectations of a column of times."""

    min_year: int = 1
    max_year: int = 9999
    max_missing: float = 0.5  # share of rows

    def __post_init__(self) -> None:
        if self.min_year > self.max_year:
            raise ValueError(f"min_year {self.min_year} is over max_year {self.max_year}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be between 0 and 1, not {self.max_missing}")


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments."""
    present = {"min_value": 1 - options.max_missing, "description": f"share of rows with {column}"}
    years = {"min_value": options.min_year, "max_value": options.max_year}
    return [
        ("expect_column_proportion_of_non_null_values_to_be_between", {"column": column, **present}),
        ("expect_column_values_to_be_between", {"column": f"{column}.year", **years}),
    ]


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Years up to a tenth of their range before the first and after the last, and a share of missing values."""
    missing = min(1.0, round(float(rows[column].isna().mean()) + 0.05, 2))
    years = rows[f"{column}.year"].dropna()
    if not len(years):
        return {"max_missing": missing}
    first, last = int(years.min()), int(years.max())
    margin = 1 + (last - first) // 10
    return {"min_year": max(1, first - margin), "max_year": min(9999, last + margin), "max_missing": missing}
