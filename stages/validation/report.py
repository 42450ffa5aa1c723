"""What was found of a table, a finding for each expectation, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Finding:
    """What Great Expectations found of one expectation."""

    name: str
    kwargs: dict[str, Any]
    of_rows: bool  # of each row by itself; else of the table as a whole
    success: bool
    observed: Any  # the table's value, or a few of the rows' unexpected ones
    sentence: str = ""  # of the table, or of the first row that fails
    unexpected: tuple[int, ...] = ()  # positions of the rows that fail
    sources: tuple[str, ...] = ()  # a few of theirs

    @property
    def column(self) -> str:
        return str(self.kwargs.get("column", ""))

    @property
    def severity(self) -> str:
        return str(self.kwargs.get("severity", "critical"))

    @property
    def bound(self) -> dict[str, Any]:
        not_bounds = ("column", "severity", "description", "notes", "meta")
        return {name: value for name, value in self.kwargs.items() if name not in not_bounds}

    def tell(self) -> str:
        """The sentence, with how many rows and a few of their sources."""
        count = f"{_count(len(self.unexpected), 'row')}: " if self.of_rows else ""
        return f"{count}{self.sentence}" + (f" ({', '.join(self.sources)})" if self.sources else "")


@dataclass(frozen=True)
class Report:
    """All findings, and what follows from them."""

    rows: int
    rejected: int
    quarantined: dict[int, list[str]]  # position of a row: its faults
    findings: list[Finding]
    results: dict[str, Any]  # Great Expectations' own

    @property
    def failed(self) -> list[Finding]:
        """What refuses the table."""
        return [
            found for found in self.findings if not (found.success or found.of_rows or found.severity != "critical")
        ]

    @property
    def faults(self) -> list[str]:
        return [found.tell() for found in self.failed]

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What does not refuse it: rows with a fault of their own, and warnings."""
        others = [found for found in self.findings if not found.success and found not in self.failed]
        return [("faulty" if found.severity == "critical" else found.severity, found.tell()) for found in others]

    @property
    def verdict(self) -> str:
        outcome = "refused" if self.failed else "accepted"
        counts = f"{len(self.quarantined):,} quarantined, {self.rejected:,} rejected"
        return f"{outcome}: {_count(self.rows, 'row')}, {counts}"

    @property
    def tree(self) -> dict[str, Any]:
        """As plain data, for machines; without `results`."""
        return {
            "outcome": "refused" if self.failed else "accepted",
            "rows": self.rows,
            "quarantined": len(self.quarantined),
            "rejected": self.rejected,
            "expectations": [
                {
                    "name": found.name,
                    "column": found.column or None,
                    "kwargs": found.bound,
                    "success": found.success,
                    "observed": found.observed,
                    "unexpected_count": len(found.unexpected) if found.of_rows else None,
                    "severity": found.severity,
                    "sources": list(found.sources),
                }
                for found in self.findings
            ],
            "faults": self.faults,
            "warnings": [sentence for word, sentence in self.notes if word != "faulty"],
        }


def summary(report: Report) -> str:
    """For the terminal: the verdict, then what each fault expected and saw."""
    lines = [report.verdict]
    for found in report.failed:
        about = f"({found.column})" if found.column else ""
        lines += [f"  fault: {found.tell()}"]
        lines += [f"         {found.name}{about}: observed {text(found.observed)}, allowed {allowed(found)}"]
    return "\n".join(lines + [f"  {word}: {sentence}" for word, sentence in report.notes])


def row_faults(rows: pd.DataFrame, findings: list[Finding]) -> dict[int, list[str]]:
    """Position of each faulty row: its faults as sentences."""
    faults: dict[int, list[str]] = {}
    for found in findings:
        if found.of_rows and not found.success and found.severity == "critical":
            positions = list(found.unexpected)
            sentences: dict[Any, str] = {}
            for position, value in zip(positions, map(plain, rows[found.column].iloc[positions]), strict=True):
                if value not in sentences:
                    sentences[value] = say(found.name, found.kwargs, value)
                faults.setdefault(position, []).append(sentences[value])
    return dict(sorted(faults.items()))


def say(name: str, kwargs: Mapping[str, Any], value: Any) -> str:
    """What is wrong with a value, such as "image.width 8 is under 32", and what to do where `notes` say it."""
    about = kwargs.get("description")
    if value is None:
        return f"{about or kwargs['column']} is missing"
    subject = f"{about} is {text(value)}," if about else f"{kwargs['column']} {text(value)} is"
    advice = f": {kwargs['notes']}" if "notes" in kwargs else ""
    return f"{subject} {_relation(name, kwargs, value)}{advice}"


def _relation(name: str, kwargs: Mapping[str, Any], value: Any) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if "value_set" in kwargs:
        return f"not among {text(kwargs['value_set'])}"
    if "regex" in kwargs:
        return f"not of the form {kwargs['regex']}"
    if low is not None and value <= low:
        return f"not over {text(low)}" if kwargs.get("strict_min") else f"under {text(low)}"
    if high is not None and value >= high:
        return f"not under {text(high)}" if kwargs.get("strict_max") else f"over {text(high)}"
    return f"not {_form(name) or 'as expected'}"


def _form(name: str) -> str:
    """What an expectation says each value is, such as "unique"."""
    return name.partition("_values_to_be_")[2].replace("_", " ")


def allowed(found: Finding) -> str:
    """The bound as words, such as "1 to 10,000"."""
    bound = dict(found.bound)
    low, high, among = bound.pop("min_value", None), bound.pop("max_value", None), bound.pop("value_set", None)
    at_least = "over" if bound.pop("strict_min", False) else "at least"
    at_most = "under" if bound.pop("strict_max", False) else "at most"
    words = [f"{at_least} {text(low)}"] * (low is not None) + [f"{at_most} {text(high)}"] * (high is not None)
    words += [f"one of {text(among)}"] * (among is not None)
    words += [f"{name} {text(value)}" for name, value in bound.items() if value is not None]
    return ", ".join(words) or _form(found.name)


def seen(found: Finding, rows: int) -> str:
    """What was observed, as words."""
    if not found.of_rows:
        return "as allowed" if found.success and found.observed is None else text(found.observed)
    values = f": {text(found.observed)}" if any(value is not None for value in found.observed) else ""
    return f"{len(found.unexpected):,} of {_count(rows, 'row')}{values}" if found.unexpected else "all rows"


def text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        more = [f"{len(value) - 12:,} more"] if len(value) > 12 else []
        return ", ".join([text(one) for one in value[:12]] + more)
    if value is None:
        return "nothing"
    if isinstance(value, (int, float)) and math.isfinite(value):
        return f"{int(value):,}" if value == int(value) else f"{value:.4g}"
    return str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."


def plain(value: Any) -> Any:
    """As JSON has it: Python's own numbers, None for what is missing."""
    if isinstance(value, (list, tuple, set)):
        return [plain(one) for one in value]
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
