"""What a column of labels must be: never missing, one label for each sample, several classes, no tiny class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MANY = 200  # classes that `infer` still lists


@dataclass(frozen=True)
class Options:
    """Expectations of the classes."""

    min_rows: int = 2  # of each class
    min_classes: int = 2
    labels: tuple[str, ...] | None = None  # the only classes allowed; by default any
    max_labels: int | None = 1  # distinct labels of copies of a sample; None: any number, as is usual in tables

    def __post_init__(self) -> None:
        if self.min_rows < 1:
            raise ValueError(f"min_rows must be at least 1, not {self.min_rows}")
        if self.max_labels is not None and self.max_labels < 1:
            raise ValueError(f"max_labels must be at least 1, not {self.max_labels}")
        if self.min_classes < 1:
            raise ValueError(f"min_classes must be at least 1, not {self.min_classes}")
        if self.labels is not None and len(set(self.labels)) < self.min_classes:
            raise ValueError(f"labels must name at least min_classes ({self.min_classes}) labels")


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments; `_labels` and `_peers` are columns that validate adds."""
    labels = "number of labels of this sample"
    classes = f"number of classes in {column}"
    smallest = f"number of rows of the smallest class in {column}"
    several = {"column": "_labels", "max_value": options.max_labels, "description": labels}
    allowed = {"column": column, "value_set": list(options.labels or ())}
    return [
        ("expect_column_values_to_not_be_null", {"column": column}),
        *([("expect_column_values_to_be_in_set", allowed)] if options.labels else []),
        *([("expect_column_values_to_be_between", several)] if options.max_labels else []),
        (
            "expect_column_unique_value_count_to_be_between",
            {"column": column, "min_value": options.min_classes, "description": classes},
        ),
        (
            "expect_column_min_to_be_between",
            {"column": "_peers", "min_value": options.min_rows, "description": smallest},
        ),
    ]


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """The classes, unless they are too many to list."""
    labels = sorted(rows[column].dropna().unique())
    numeric = all(label.removeprefix("-").isdecimal() for label in labels)
    return {"labels": sorted(labels, key=int) if numeric else labels} if 2 <= len(labels) <= MANY else {}
