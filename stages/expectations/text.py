"""What a column of texts must be: of a usable length, in letters that are expected, and not missing too often."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    min_length: int = 0  # characters
    max_length: int = 100_000
    min_words: int = 0
    min_latin: float = 0.0  # share of the letters
    regex: str | None = None  # that each text matches
    max_missing: float = 0.5  # share of rows

    def __post_init__(self) -> None:
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError(f"min_length {self.min_length} must be between 0 and max_length {self.max_length}")
        for name in ("min_latin", "max_missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"regex {self.regex!r} is none: {error}") from error


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments, over the texts and their facts."""
    present = {"min_value": 1 - options.max_missing, "description": f"share of rows with {column}"}
    length = {"min_value": options.min_length, "max_value": options.max_length}
    suite: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_proportion_of_non_null_values_to_be_between", {"column": column, **present}),
        ("expect_column_values_to_be_between", {"column": f"{column}.length", **length}),
    ]
    for fact, least in (("words", options.min_words), ("latin", options.min_latin)):
        if least:
            suite.append(("expect_column_values_to_be_between", {"column": f"{column}.{fact}", "min_value": least}))
    if options.regex is not None:
        suite.append(("expect_column_values_to_match_regex", {"column": column, "regex": options.regex}))
    return suite
