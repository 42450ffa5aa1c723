"""What a category column must be: in an allowed set or form, with not too many distinct words or missing ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MANY = 50  # words that `infer` still lists


@dataclass(frozen=True)
class Options:
    """Expectations of a category."""

    allowed: tuple[str, ...] | None = None  # the only words; by default any
    regex: str | None = None  # a pattern that each word matches
    unique: bool = False  # no word in two rows
    min_distinct: int | None = None  # distinct words
    max_distinct: int | None = None
    max_missing: float = 0.5  # share of rows

    def __post_init__(self) -> None:
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be between 0 and 1, not {self.max_missing}")
        if self.min_distinct is not None and self.max_distinct is not None and self.min_distinct > self.max_distinct:
            raise ValueError(f"min_distinct {self.min_distinct} is over max_distinct {self.max_distinct}")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"regex {self.regex!r} is not valid: {error}") from error


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments."""
    present = {"min_value": 1 - options.max_missing, "description": f"share of rows with {column}"}
    distinct = {"min_value": options.min_distinct, "max_value": options.max_distinct}
    words = f"number of different words in {column}"
    suite: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_proportion_of_non_null_values_to_be_between", {"column": column, **present})
    ]
    if options.allowed is not None:
        suite.append(("expect_column_values_to_be_in_set", {"column": column, "value_set": list(options.allowed)}))
    if options.regex is not None:
        suite.append(("expect_column_values_to_match_regex", {"column": column, "regex": options.regex}))
    if options.unique:
        suite.append(("expect_column_values_to_be_unique", {"column": column}))
    if options.min_distinct is not None or options.max_distinct is not None:
        between = {"column": column, **distinct, "description": words}
        suite.append(("expect_column_unique_value_count_to_be_between", between))
    return suite


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """The words if they are few and frequent, and a share of missing ones."""
    known = rows[column].dropna()
    missing = min(1.0, round(float(rows[column].isna().mean()) + 0.05, 2))
    words = sorted(known.unique())
    few = 0 < len(words) <= min(MANY, len(known) / 10)
    return {**({"allowed": words} if few else {}), "max_missing": missing}
