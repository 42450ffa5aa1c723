"""The report on a table as an HTML page that loads no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.core.page import render
from stages.validation.report import Finding, Report, allowed, plain, seen, text

if TYPE_CHECKING:
    import pandas as pd

COPIES = ("stages/core/page/validation.html",)
MANY = 20  # rows of a list that the page shows
BINS = 24
SHORTEST = 0.3  # percent of the width: a bar that can be seen
MARKS = {"critical": ("✗\N{NO-BREAK SPACE}fault", "bad"), "warning": ("✗\N{NO-BREAK SPACE}warning", "warn")}

Bars = Sequence[tuple[str, str, float]]  # value, rows, and length in percent


@dataclass(frozen=True)
class Line:
    """An expectation. `tone`: the class of the mark's color."""

    mark: str
    tone: str
    of: str
    allowed: str
    seen: str
    name: str


@dataclass(frozen=True)
class Column:
    """A column: its only value, bars of its values, or a histogram: left end, width and height of each bar."""

    title: str
    only: str = ""
    bars: Bars = ()
    histogram: Sequence[tuple[float, float, float]] = ()
    first: str = ""
    middle: str = ""
    last: str = ""


def page(report: Report, rows: pd.DataFrame, rejected: list[tuple[str, str]], target: str) -> str:
    """The report as HTML."""
    outcome, _, counts = report.verdict.partition(": ")
    shown = list(report.quarantined.items())[:MANY]
    titles = {target: f"Rows by {target}", "_split": "Rows by official split"}
    facts = {name: name for name in rows if "." in name and name != target}
    values = {
        "report": report,
        "outcome": outcome,
        "counts": counts,
        "expectations": [_line(finding, report.rows) for finding in sorted(report.findings, key=lambda f: f.success)],
        "columns": [_column(title, rows[name]) for name, title in (titles | facts).items()],
        "quarantined": [(rows["_source"].iloc[position], "; ".join(faults)) for position, faults in shown],
        "rejected": rejected,
        "most": MANY,
    }
    return render(COPIES, values)


def _line(finding: Finding, rows: int) -> Line:
    mark, tone = ("✓", "good") if finding.success else MARKS.get(finding.severity, (finding.severity, "warn"))
    about = finding.kwargs.get("description") or finding.column
    return Line(mark, tone, about, allowed(finding) or "not missing", seen(finding, rows), finding.name)


def _column(title: str, values: pd.Series) -> Column:
    """A histogram of numbers, or a bar for each value of another type."""
    from pandas.api.types import is_numeric_dtype

    if not values.notna().any():
        return Column(title, only="(none)")
    if values.notna().all() and values.nunique() == 1:
        return Column(title, only=text(plain(values.iloc[0])))
    return _histogram(title, values.dropna()) if is_numeric_dtype(values) else Column(title, bars=_bars(values))


def _bars(values: pd.Series) -> Bars:
    """Bars of the most frequent and of the rarest values."""
    counts = values.fillna("(none)").value_counts()
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    bars = [(text(value), f"{count:,}", max(SHORTEST, round(100 * count / pairs[0][1], 1))) for value, count in pairs]
    others = len(bars) - 2 * MANY
    return bars if others <= 0 else [*bars[:MANY], (f"{others:,} others", "", 0.0), *bars[-MANY:]]


def _histogram(title: str, values: pd.Series) -> Column:
    import numpy as np

    low, middle, high = (float(value) for value in np.quantile(values, (0, 0.5, 1)))
    counts, _ = np.histogram(values, bins=BINS, range=(low, high))
    width = 100 / BINS
    bars = [
        (round(place * width, 2), round(0.9 * width, 2), round(float(height), 1))
        for place, height in enumerate(100 * counts / counts.max())
    ]
    return Column(title, histogram=bars, first=text(low), middle=text(middle), last=text(high))
