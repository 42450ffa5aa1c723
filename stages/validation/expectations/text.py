"""What a text column must be: of a usable length, in an expected script, and not missing too often."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """Expectations of a column of texts."""

    min_length: int = 0  # characters
    max_length: int = 100_000
    min_words: int = 0
    scripts: tuple[str, ...] | None = None  # the only scripts of most letters of a text, such as LATIN; by default any
    regex: str | None = None  # a pattern that each text matches
    unique: bool = False  # no text in two rows
    min_distinct: int | None = None  # distinct texts
    max_missing: float = 0.5  # share of rows

    def __post_init__(self) -> None:
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError(f"min_length {self.min_length} must be between 0 and max_length {self.max_length}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must be between 0 and 1, not {self.max_missing}")
        if self.min_distinct is not None and self.min_distinct < 1:
            raise ValueError(f"min_distinct must be at least 1, not {self.min_distinct}")
        for script in self.scripts or ():
            if script not in _scripts():
                raise ValueError(f"scripts: no letter's Unicode name begins with {script!r}: try LATIN, GREEK or CJK")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"regex {self.regex!r} is not valid: {error}") from error


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments, over the texts and their facts."""
    present = {"min_value": 1 - options.max_missing, "description": f"share of rows with {column}"}
    length = {"min_value": options.min_length, "max_value": options.max_length}
    suite: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_proportion_of_non_null_values_to_be_between", {"column": column, **present}),
        ("expect_column_values_to_be_between", {"column": f"{column}.length", **length}),
    ]
    if options.min_words:
        words = {"column": f"{column}.words", "min_value": options.min_words}
        suite.append(("expect_column_values_to_be_between", words))
    if options.scripts:
        scripts = {"column": f"{column}.script", "value_set": list(options.scripts)}
        suite.append(("expect_column_values_to_be_in_set", scripts))
    if options.regex is not None:
        suite.append(("expect_column_values_to_match_regex", {"column": column, "regex": options.regex}))
    if options.unique:
        suite.append(("expect_column_values_to_be_unique", {"column": column}))
    if options.min_distinct is not None:
        distinct = {"min_value": options.min_distinct, "description": f"number of different texts in {column}"}
        suite.append(("expect_column_unique_value_count_to_be_between", {"column": column, **distinct}))
    return suite


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Twice the length of the longest text, rounded up; the scripts; and a share of missing texts."""
    missing = min(1.0, round(float(rows[column].isna().mean()) + 0.05, 2))
    longest = 2 * max(1, int(rows[f"{column}.length"].max()))
    step = 10 ** max(0, math.floor(math.log10(longest)) - 1)
    scripts = sorted(rows[f"{column}.script"].dropna().unique())
    length = {"max_length": math.ceil(longest / step) * step}
    return {**length, **({"scripts": scripts} if scripts else {}), "max_missing": missing}


@functools.cache
def _scripts() -> set[str]:
    """The first words of all letters' Unicode names."""
    letters = filter(str.isalpha, map(chr, range(0x20000)))  # those beyond are rarer forms of the same scripts
    return {unicodedata.name(letter, "").partition(" ")[0] for letter in letters}
