"""The report on a table as an HTML page that loads no other file."""

from __future__ import annotations

import html
from collections.abc import Iterable
from string import Template
from typing import TYPE_CHECKING

from stages.validation.report import Report, allowed, plain, seen, text

if TYPE_CHECKING:
    import pandas as pd

MANY = 20  # rows of a list that the page shows


def page(report: Report, rows: pd.DataFrame, rejected: list[tuple[str, str]], target: str) -> str:
    """The report as HTML."""
    outcome, _, counts = report.verdict.partition(": ")
    shown = list(report.quarantined.items())[:MANY]
    quarantined = [(rows["_source"].iloc[position], "; ".join(faults)) for position, faults in shown]
    facts = [name for name in rows if "." in name and name != target]
    sections = [
        _section("Faults of the table", _items([("fault", sentence) for sentence in report.faults])),
        _section("Faulty rows and warnings", _items(report.notes)),
        _section("Expectations", _table(("", "Of", "Allowed", "Seen", "Great Expectations' name"), _lines(report))),
        _section(f"Rows by {target}", _picture(rows[target])),
        _section("Rows by official split", _picture(rows["_split"])),
        *(_section(name, _picture(rows[name])) for name in facts),
        _section("Quarantined", _table(("Source", "Why"), quarantined), len(report.quarantined) - len(quarantined)),
        _section("Rejected: could not be read", _table(("Source", "Why"), rejected[:MANY]), len(rejected) - MANY),
    ]
    return _PAGE.substitute(outcome=outcome, counts=html.escape(counts), sections="\n".join(filter(None, sections)))


def _lines(report: Report) -> list[tuple[str, ...]]:
    """A line for each expectation; those that are not met come first."""
    words = {"critical": "✗\N{NO-BREAK SPACE}fault", "warning": "✗\N{NO-BREAK SPACE}warning"}
    return [
        (
            "✓" if finding.success else words.get(finding.severity, finding.severity),
            finding.kwargs.get("description") or finding.column,
            allowed(finding) or "not missing",
            seen(finding, report.rows),
            finding.name,
        )
        for finding in sorted(report.findings, key=lambda finding: finding.success)
    ]


def _section(title: str, content: str, more: int = 0) -> str:
    rest = f"<p>and {more:,} more</p>" if more > 0 else ""
    return f"<section><h2>{html.escape(title)}</h2>{content}{rest}</section>" if content else ""


def _items(notes: list[tuple[str, str]]) -> str:
    items = [
        f'<li><b class="{html.escape(word)}">{html.escape(word)}</b> {html.escape(sentence)}</li>'
        for word, sentence in notes
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _table(heads: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    body = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>' if body else ""


def _picture(values: pd.Series) -> str:
    """A histogram of numbers, or a bar for each value of another type."""
    from pandas.api.types import is_numeric_dtype

    if not values.notna().any():
        return "<p>none</p>"
    if values.notna().all() and values.nunique() == 1:
        return f"<p>always {html.escape(text(plain(values.iloc[0])))}</p>"
    return _histogram(values.dropna()) if is_numeric_dtype(values) else _bars(values)


def _bars(values: pd.Series) -> str:
    """Bars of the most frequent and of the rarest values."""
    counts = values.fillna("(none)").value_counts()
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    cut = [*pairs[:MANY], *pairs[max(MANY, len(pairs) - MANY) :]]
    gap = f"{len(pairs) - len(cut):,} others"
    lines = [
        f"<tr><th>{html.escape(text(value))}</th><td>{count:,}</td>"
        f'<td class="bar"><i style="width:{100 * count / pairs[0][1]:.1f}%"></i></td></tr>'
        for value, count in cut
    ]
    if len(cut) < len(pairs):
        lines.insert(MANY, f"<tr><th>{gap}</th></tr>")
    return f'<table class="bars">{"".join(lines)}</table>'


def _histogram(values: pd.Series) -> str:
    import numpy as np

    low, middle, high = (float(value) for value in np.quantile(values, (0, 0.5, 1)))
    counts, _ = np.histogram(values, bins=24, range=(low, high))
    bars = [
        f'<rect x="{10 * place}" y="{60 - height:.1f}" width="9" height="{height:.1f}"/>'
        for place, height in enumerate(60 * counts / counts.max())
    ]
    label = f"{text(low)} to {text(high)}, half of the rows up to {text(middle)}"
    return f'<svg viewBox="0 0 240 60" role="img" aria-label="{label}">{"".join(bars)}</svg><p>{label}</p>'


_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Validation: $outcome</title>
<style>
:root { color-scheme: light dark; --line: #d5d9de; --soft: #5b6570; --bar: #4a7fb5; --good: #1d7a3e; --bad: #b3261e;
  --warn: #8a5a00; --paper: #fff; --ink: #1b1f24 }
@media (prefers-color-scheme: dark) { :root { --line: #3a4149; --soft: #9aa4af; --bar: #6ea3d8; --good: #63c785;
  --bad: #ff8a80; --warn: #e5b04a; --paper: #15181c; --ink: #e6e9ec } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif;
  background: var(--paper); color: var(--ink) }
h1 { margin: 0; font-size: 1.8rem } h1.accepted { color: var(--good) } h1.refused { color: var(--bad) }
h1::first-letter { text-transform: uppercase }
h2 { margin: 2rem 0 .5rem; font-size: 1.05rem }
p { margin: .25rem 0; color: var(--soft) }
ul { margin: 0; padding: 0; list-style: none } li { padding: .3rem 0; overflow-wrap: anywhere }
b { font-size: .8rem; text-transform: uppercase; letter-spacing: .04em; margin-right: .4rem }
.fault { color: var(--bad) } .faulty, .warning { color: var(--warn) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem } .wide table { min-width: 100% }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } .wide td:last-child:nth-child(5) { color: var(--soft); font: .75rem/2 monospace }
.bars { width: 100% } .bars th, .bars td { border: 0; padding: .1rem .6rem .1rem 0; font-weight: 400 }
.bars th { max-width: 14rem; overflow-wrap: anywhere }
.bars td { text-align: right; font-variant-numeric: tabular-nums } .bars .bar { width: 70%; vertical-align: middle }
.bar i { display: block; height: .7rem; min-width: 1px; background: var(--bar) }
svg { display: block; width: 100%; max-width: 30rem; fill: var(--bar); border-bottom: 1px solid var(--line) }
</style>
</head>
<body>
<h1 class="$outcome">$outcome</h1>
<p>$counts</p>
$sections
</body>
</html>
""")
