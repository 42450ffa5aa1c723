"""The findings of a validation, one for each expectation, and their wording."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Finding:
    """Great Expectations' result for one expectation."""

    name: str
    kwargs: dict[str, Any]
    of_rows: bool  # an expectation of each row, else of the table as a whole
    success: bool
    observed: Any  # the table's value, or a few unexpected values of rows
    sentence: str = ""  # about the table, or about the first row that fails
    unexpected: tuple[int, ...] = ()  # positions of the rows that fail
    sources: tuple[str, ...] = ()  # of a few of these rows

    @property
    def column(self) -> str:
        """The column's name, "" for the table as a whole."""
        return str(self.kwargs.get("column", ""))

    @property
    def severity(self) -> str:
        """How bad a failure is: "critical" or "warning"."""
        return str(self.kwargs.get("severity", "critical"))

    @property
    def bound(self) -> dict[str, Any]:
        """The expectation's own arguments."""
        not_bounds = ("column", "severity", "description", "notes", "meta")
        return {name: value for name, value in self.kwargs.items() if name not in not_bounds}

    def describe(self) -> str:
        """The sentence, with the number of rows and a few of their sources."""
        count = f"{_count(len(self.unexpected), 'row')}: " if self.of_rows else ""
        return f"{count}{self.sentence}" + (f" ({', '.join(self.sources)})" if self.sources else "")


@dataclass(frozen=True)
class Report:
    """All findings, and the verdict on the table."""

    rows: int
    rejected: int
    quarantined: dict[int, list[str]]  # position of a row -> its faults
    findings: list[Finding]
    results: dict[str, Any]  # Great Expectations' own

    @property
    def failed(self) -> list[Finding]:
        """The findings for which the table is refused."""
        return [
            finding
            for finding in self.findings
            if not (finding.success or finding.of_rows or finding.severity != "critical")
        ]

    @property
    def faults(self) -> list[str]:
        """A sentence for each finding for which the table is refused."""
        return [finding.describe() for finding in self.failed]

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Findings for which the table is not refused: faulty rows and warnings."""
        others = [finding for finding in self.findings if not finding.success and finding not in self.failed]
        return [
            ("faulty" if finding.severity == "critical" else finding.severity, finding.describe()) for finding in others
        ]

    @property
    def verdict(self) -> str:
        """The outcome and the counts in one line."""
        outcome = "refused" if self.failed else "accepted"
        counts = f"{len(self.quarantined):,} quarantined, {self.rejected:,} rejected"
        return f"{outcome}: {_count(self.rows, 'row')}, {counts}"

    @property
    def tree(self) -> dict[str, Any]:
        """The report as plain data for `validation.json`, without `results`."""
        return {
            "outcome": "refused" if self.failed else "accepted",
            "rows": self.rows,
            "quarantined": len(self.quarantined),
            "rejected": self.rejected,
            "expectations": [
                {
                    "name": finding.name,
                    "column": finding.column or None,
                    "kwargs": finding.bound,
                    "success": finding.success,
                    "observed": finding.observed,
                    "unexpected_count": len(finding.unexpected) if finding.of_rows else None,
                    "severity": finding.severity,
                    "sources": list(finding.sources),
                }
                for finding in self.findings
            ],
            "faults": self.faults,
            "warnings": [sentence for word, sentence in self.notes if word != "faulty"],
        }


def summary(report: Report) -> str:
    """The text for the terminal: the verdict, then the allowed and observed values of each fault."""
    lines = [report.verdict]
    for finding in report.failed:
        about = f"({finding.column})" if finding.column else ""
        lines += [f"  fault: {finding.describe()}"]
        lines += [f"         {finding.name}{about}: observed {text(finding.observed)}, allowed {allowed(finding)}"]
    return "\n".join(lines + [f"  {word}: {sentence}" for word, sentence in report.notes])


def row_faults(rows: pd.DataFrame, findings: list[Finding]) -> dict[int, list[str]]:
    """Position of each faulty row -> its faults as sentences."""
    faults: dict[int, list[str]] = {}
    for finding in findings:
        if finding.of_rows and not finding.success and finding.severity == "critical":
            positions = list(finding.unexpected)
            sentences: dict[Any, str] = {}
            for position, value in zip(positions, map(plain, rows[finding.column].iloc[positions]), strict=True):
                if value not in sentences:
                    sentences[value] = fault_sentence(finding.name, finding.kwargs, value)
                faults.setdefault(position, []).append(sentences[value])
    return dict(sorted(faults.items()))


def fault_sentence(name: str, kwargs: Mapping[str, Any], value: Any) -> str:
    """What is wrong with a value, such as "image.width 8 is under 32", with the advice in `notes`."""
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
    """The property in an expectation's name, such as "unique"."""
    return name.partition("_values_to_be_")[2].replace("_", " ")


def allowed(finding: Finding) -> str:
    """The bound in words, such as "at least 1, at most 10,000"."""
    bound = dict(finding.bound)
    low, high, among = bound.pop("min_value", None), bound.pop("max_value", None), bound.pop("value_set", None)
    at_least = "over" if bound.pop("strict_min", False) else "at least"
    at_most = "under" if bound.pop("strict_max", False) else "at most"
    words = [f"{at_least} {text(low)}"] * (low is not None) + [f"{at_most} {text(high)}"] * (high is not None)
    words += [f"one of {text(among)}"] * (among is not None)
    words += [f"{name} {text(value)}" for name, value in bound.items() if value is not None]
    return ", ".join(words) or _form(finding.name)


def seen(finding: Finding, rows: int) -> str:
    """The observed values in words."""
    if not finding.of_rows:
        return "as allowed" if finding.success and finding.observed is None else text(finding.observed)
    values = f": {text(finding.observed)}" if any(value is not None for value in finding.observed) else ""
    return f"{len(finding.unexpected):,} of {_count(rows, 'row')}{values}" if finding.unexpected else "all rows"


def text(value: Any) -> str:
    """A value for people: short, numbers rounded."""
    if isinstance(value, (list, tuple)):
        more = [f"{len(value) - 12:,} more"] if len(value) > 12 else []
        return ", ".join([text(element) for element in value[:12]] + more)
    if value is None:
        return "nothing"
    if isinstance(value, (int, float)) and math.isfinite(value):
        return f"{int(value):,}" if value == int(value) else f"{value:.4g}"
    return str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."


def plain(value: Any) -> Any:
    """A value for JSON: with Python's own numbers, and None for missing ones."""
    if isinstance(value, (list, tuple, set)):
        return [plain(element) for element in value]
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
