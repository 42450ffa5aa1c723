"""Great Expectations looks at every row: faulty ones are quarantined, a faulty table is refused, both are reported."""

from __future__ import annotations

import csv
import html
import importlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Protocol, cast

from stages import command, params
from stages.errors import Refused, UserError
from stages.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Suite = list[tuple[str, dict[str, Any]]]  # Great Expectations' names with their arguments
FEW = 5  # sources and values that are shown of one fault
MANY = 20  # rows that a list of the page shows


def main(table: Path, rejects: Path, validation: Path, quarantine: Path) -> None:
    """Report on the table and set its faulty rows aside; refuse it (exit code 3) if it is faulty as a whole."""
    said = params.load("validate")
    declared = params.declared(said.schema.features, said.schema.target)
    suite = build(declared, said.validate.columns)
    rows, rejected = read(table, declared, suite), read_rejects(rejects)
    limits = {"quarantined": said.validate.max_quarantined, "rejected": said.validate.max_rejected}
    report = check(rows, rejected, declared.target.name, suite, said.validate.min_rows, limits)
    with command.replacing(quarantine) as whole:
        write_quarantine(whole, rows, report.quarantined)
    with command.replacing(validation) as folder:
        write_report(folder, report, rows, rejected, declared.target.name)
    print(summary(report))
    if report.failed:
        raise Refused(f"the data are refused: {'; '.join(report.faults)}: see {validation}/index.html")


class Expectations(Protocol):
    """A module of `stages/expectations/`: plain data."""

    Options: type

    def expectations(self, column: str, options: Any) -> Suite: ...


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
        said_elsewhere = ("column", "severity", "description", "meta")
        return {name: value for name, value in self.kwargs.items() if name not in said_elsewhere}

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


def build(declared: Schema, columns: Mapping[str, dict[str, Any]]) -> Suite:
    """What is expected of every table, of each feature by its kind, and of the target by its.

    Raises:
        UserError: `validate.columns` says something that a column's expectations do not know.
    """
    with_id = {"column": "_id", "min_value": 1.0, "description": "share of rows with an id"}
    splits = {"column": "_split", "value_set": ["train", "val", "test"]}
    copies = {"column": "_copies", "max_value": 1, "description": "number of rows with this sample"}
    several = {"column": "_splits", "max_value": 1, "description": "number of official splits with this sample"}
    suite: Suite = [
        ("expect_column_proportion_of_non_null_values_to_be_between", with_id),
        ("expect_column_distinct_values_to_be_in_set", splits),
        # Only warnings: prepare takes the training copy of a sample in two splits out, and copies harm nobody else.
        ("expect_column_values_to_be_between", {**copies, "severity": "warning"}),
        ("expect_column_values_to_be_between", {**several, "severity": "warning"}),
    ]
    for column in (*declared.features, declared.target):
        module = cast(Expectations, importlib.import_module(f"stages.expectations.{column.kind}"))
        options = params.options(module, columns.get(column.name, {}), f"validate.columns.{column.name}")
        suite += module.expectations(column.name, options)
    return suite


def read(path: Path, declared: Schema, suite: Suite) -> pd.DataFrame:
    """The small columns of the table: its own, the target, the facts, and those that the suite names.

    Raises:
        UserError: a column that every table has is not there.
    """
    import pyarrow.parquet as parquet

    there = parquet.read_schema(path).names
    own = ["_id", "_split", "_source", declared.target.name]
    for name in own:
        if name not in there:
            raise UserError(f"{path} has no column {name!r}: run ingest again")
    facts = [name for column in declared.features for name in there if name.startswith(f"{column.name}.")]
    named = [kwargs["column"] for _, kwargs in suite if kwargs.get("column") in there]
    return parquet.read_table(path, columns=list(dict.fromkeys(own + facts + named))).to_pandas()


def read_rejects(path: Path) -> list[tuple[str, str]]:
    """Source and reason of each sample that could not be read."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [(row["source"], row["reason"]) for row in csv.DictReader(file)]


def check(
    rows: pd.DataFrame,
    rejected: list[tuple[str, str]],
    target: str,
    suite: Suite,
    min_rows: int,
    limits: Mapping[str, float],
) -> Report:
    """Validate each row, then how many samples are lost, then the table that is left without the quarantined rows.

    Beyond the limit nothing is set aside: what is left is then the whole table.
    """
    full = derive(rows, target)
    of_rows, of_table = _parted(suite)
    findings, row_results = _validate("rows", full, of_rows)
    quarantined = _faults(full, findings)
    shares = {
        "quarantined": len(quarantined) / max(1, len(rows)),
        "rejected": len(rejected) / max(1, len(rows) + len(rejected)),
    }
    examples = {
        "quarantined": tuple(rows["_source"].iloc[list(quarantined)[:FEW]]),
        "rejected": tuple(source for source, _ in rejected[:FEW]),
    }
    lost, share_results = _validate_shares(shares, limits, examples)
    aside = quarantined if shares["quarantined"] <= limits["quarantined"] else {}
    left = derive(full.drop(index=list(aside)).reset_index(drop=True), target) if aside else full
    # Great Expectations lets an empty table pass what is said of rows, and has no smallest value of nothing.
    enough = {"min_value": max(1, min_rows), "description": "number of rows" + (" left" if aside else "")}
    of_table = [("expect_table_row_count_to_be_between", enough), *(of_table if len(left) else [])]
    whole, table_results = _validate("table", left, of_table)
    results = {"rows": row_results, "shares": share_results, "table": table_results}
    return Report(len(rows), len(rejected), quarantined, [*whole, *lost, *findings], results)


def derive(rows: pd.DataFrame, target: str) -> pd.DataFrame:
    """The rows, with what must be counted over the whole table; ids become numbers, which are smaller and faster.

    `_copies`: rows of this id. `_labels`, `_splits`: different targets and official splits of this id.
    `_peers`: rows of this target.
    """
    import numpy as np
    import pandas as pd

    ids, labels, splits = (pd.factorize(rows[name])[0].astype(np.int64) for name in ("_id", target, "_split"))
    return rows.assign(
        _id=np.where(ids < 0, np.nan, ids),
        _copies=_sizes(ids),
        _labels=_distinct(ids, labels),
        _splits=_distinct(ids, splits),
        _peers=np.where(labels < 0, np.nan, _sizes(labels)),
    )


def _sizes(codes: np.ndarray) -> np.ndarray:
    """For each row how many have its code [N]; 0 for -1, the missing."""
    import numpy as np

    counts: np.ndarray = np.append(np.bincount(codes[codes >= 0], minlength=codes.max(initial=-1) + 1), 0)
    return np.take(counts, codes)


def _distinct(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each row how many different values [N] its group [N] has; missing ones do not count."""
    import numpy as np
    import pandas as pd

    there = (groups >= 0) & (values >= 0)
    width = max(1, values.max(initial=-1) + 1)
    pairs = pd.unique(groups[there] * width + values[there])
    counts: np.ndarray = np.append(np.bincount(pairs // width, minlength=groups.max(initial=-1) + 1), 0)
    return np.take(counts, groups)


def _great_expectations() -> Any:
    """The library, silent and without telemetry. Imported here because it takes seconds."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return great_expectations


def _parted(suite: Suite) -> tuple[Suite, Suite]:
    """The expectations of each row, and those of the table."""
    _great_expectations()
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.registry import get_expectation_impl

    def of_rows(name: str) -> bool:
        return issubclass(get_expectation_impl(name), ColumnMapExpectation)

    return [said for said in suite if of_rows(said[0])], [said for said in suite if not of_rows(said[0])]


def _validate(name: str, rows: pd.DataFrame, suite: Suite) -> tuple[list[Finding], dict[str, Any]]:
    """Findings in the order of the suite, and Great Expectations' own result."""
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    whole = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    expected = [
        get_expectation_impl(kind)(**kwargs, meta={"order": order}) for order, (kind, kwargs) in enumerate(suite)
    ]
    # It hashes all that it is given, so it is given no more than it asks for.
    named = [column for column in rows if column in {kwargs.get("column") for _, kwargs in suite}]
    validated = whole.get_batch({"dataframe": rows[named]}).validate(
        gx.ExpectationSuite(name, expectations=expected),
        result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
    )
    results = sorted(validated.results, key=lambda result: result.expectation_config.meta["order"])
    findings = [_finding(rows, *said, result) for said, result in zip(suite, results, strict=True)]
    return findings, {"statistics": validated.statistics, "results": [_reproducible(result) for result in results]}


def _validate_shares(
    shares: dict[str, float], limits: Mapping[str, float], examples: Mapping[str, tuple[str, ...]]
) -> tuple[list[Finding], dict[str, Any]]:
    """The same, of a table of one row: the share of samples lost in each way."""
    import pandas as pd

    what = {"quarantined": "share of rows quarantined", "rejected": "share of samples that could not be read"}
    suite: Suite = [
        ("expect_column_max_to_be_between", {"column": name, "max_value": limits[name], "description": what[name]})
        for name in shares
    ]
    findings, results = _validate("shares", pd.DataFrame([shares]), suite)
    return [found if found.success else replace(found, sources=examples[found.column]) for found in findings], results


def _finding(rows: pd.DataFrame, name: str, kwargs: dict[str, Any], result: Any) -> Finding:
    column, found, success = kwargs.get("column"), result.result, bool(result.success)
    if "unexpected_index_list" in found:
        positions = tuple(found["unexpected_index_list"])
        values = [_plain(item["value"]) for item in found["partial_unexpected_counts"]][:FEW]
        first = _say(kwargs, _plain(rows[column].iloc[positions[0]])) if positions else ""
        return Finding(name, kwargs, True, success, values, first, positions, _sources(rows, positions))
    if "observed_value" not in found:  # Great Expectations raised an error inside
        what = f"{column} is not in the table" if column not in rows else f"{column} cannot be judged by {name}"
        return Finding(name, kwargs, False, False, None, what)
    observed = _plain(found["observed_value"])
    if observed is None and not success:  # of a set of values it tells only the unexpected ones
        observed = _plain(found.get("partial_unexpected_list"))
    if success:
        return Finding(name, kwargs, False, True, observed)
    positions = _offenders(rows, name, kwargs)
    return Finding(name, kwargs, False, False, observed, _say(kwargs, observed), positions, _sources(rows, positions))


def _offenders(rows: pd.DataFrame, name: str, kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The rows whose values make a table's smallest, largest or set of values wrong."""
    import numpy as np

    if "value_set" in kwargs:
        wrong = rows[kwargs["column"]].notna() & ~rows[kwargs["column"]].isin(kwargs["value_set"])
    elif name in ("expect_column_min_to_be_between", "expect_column_max_to_be_between"):
        low, high = kwargs.get("min_value", -math.inf), kwargs.get("max_value", math.inf)
        wrong = (rows[kwargs["column"]] < low) | (rows[kwargs["column"]] > high)
    else:
        return ()
    return tuple(np.flatnonzero(wrong).tolist())


def _sources(rows: pd.DataFrame, positions: tuple[int, ...]) -> tuple[str, ...]:
    """Of a few rows; those of one sample stand together."""
    if "_source" not in rows:
        return ()
    return tuple(rows[["_id", "_source"]].iloc[list(positions)].sort_values("_id", kind="stable")["_source"].iloc[:FEW])


def _faults(rows: pd.DataFrame, findings: list[Finding]) -> dict[int, list[str]]:
    """Position of each faulty row: its faults as sentences."""
    faults: dict[int, list[str]] = {}
    for found in findings:
        if found.of_rows and not found.success and found.severity == "critical":
            positions = list(found.unexpected)
            sentences: dict[Any, str] = {}
            for position, value in zip(positions, map(_plain, rows[found.column].iloc[positions]), strict=True):
                if value not in sentences:
                    sentences[value] = _say(found.kwargs, value)
                faults.setdefault(position, []).append(sentences[value])
    return dict(sorted(faults.items()))


def _say(kwargs: Mapping[str, Any], value: Any) -> str:
    """What is wrong with a value, such as "image.width 8 is under 32"."""
    about = kwargs.get("description")
    if value is None:
        return f"{about or kwargs['column']} is missing"
    subject = f"{about} is {_text(value)}," if about else f"{kwargs['column']} {_text(value)} is"
    return f"{subject} {_relation(kwargs, value)}"


def _relation(kwargs: Mapping[str, Any], value: Any) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if "value_set" in kwargs:
        return f"not among {_text(kwargs['value_set'])}"
    if low is not None and value <= low:
        return f"not over {_text(low)}" if kwargs.get("strict_min") else f"under {_text(low)}"
    if high is not None and value >= high:
        return f"not under {_text(high)}" if kwargs.get("strict_max") else f"over {_text(high)}"
    return "not as expected"


def _allowed(found: Finding) -> str:
    """The bound as words, such as "1 to 10,000"."""
    bound = dict(found.bound)
    low, high, among = bound.pop("min_value", None), bound.pop("max_value", None), bound.pop("value_set", None)
    at_least = "over" if bound.pop("strict_min", False) else "at least"
    at_most = "under" if bound.pop("strict_max", False) else "at most"
    words = [f"{at_least} {_text(low)}"] * (low is not None) + [f"{at_most} {_text(high)}"] * (high is not None)
    words += [f"one of {_text(among)}"] * (among is not None)
    return ", ".join(words + [f"{name} {_text(value)}" for name, value in bound.items()])


def _seen(found: Finding, rows: int) -> str:
    """What was observed, as words."""
    if not found.of_rows:
        return "as allowed" if found.success and found.observed is None else _text(found.observed)
    values = f": {_text(found.observed)}" if any(value is not None for value in found.observed) else ""
    return f"{len(found.unexpected):,} of {_count(rows, 'row')}{values}" if found.unexpected else "all rows"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        more = [f"{len(value) - 12:,} more"] if len(value) > 12 else []
        return ", ".join([_text(one) for one in value[:12]] + more)
    if value is None:
        return "nothing"
    if isinstance(value, (int, float)) and math.isfinite(value):
        return f"{int(value):,}" if value == int(value) else f"{value:.4g}"
    return str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."


def _plain(value: Any) -> Any:
    """As JSON has it: Python's own numbers, None for what is missing."""
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in value]
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _reproducible(result: Any) -> dict[str, Any]:
    """One of Great Expectations' results without what is long, random, or of this machine."""
    for long in ("unexpected_list", "unexpected_index_list", "unexpected_index_query"):
        result.result.pop(long, None)
    tree: dict[str, Any] = result.to_json_dict()
    errors = [said for said in tree.pop("exception_info").values() if isinstance(said, dict)]
    return tree | {"errors": [said["exception_message"] for said in errors]}


def summary(report: Report) -> str:
    """For the terminal: the verdict, then what each fault expected and saw."""
    lines = [report.verdict]
    for found in report.failed:
        about = f"({found.column})" if found.column else ""
        lines += [f"  fault: {found.tell()}"]
        lines += [f"         {found.name}{about}: observed {_text(found.observed)}, allowed {_allowed(found)}"]
    return "\n".join(lines + [f"  {word}: {sentence}" for word, sentence in report.notes])


def write_quarantine(path: Path, rows: pd.DataFrame, quarantined: Mapping[int, list[str]]) -> None:
    """A line for each row that is set aside: its id, its source, and its faults."""
    chosen = rows[["_id", "_source"]].iloc[list(quarantined)].itertuples(index=False, name=None)
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "source", "reasons"))
        for (name, source), faults in zip(chosen, quarantined.values(), strict=True):
            writer.writerow((name, source, "; ".join(faults)))


def write_report(
    folder: Path, report: Report, rows: pd.DataFrame, rejected: list[tuple[str, str]], target: str
) -> None:
    """`index.html` for people, `validation.json` for machines, `great_expectations.json` as that library said it."""
    folder.mkdir()
    tree = {
        "outcome": "refused" if report.failed else "accepted",
        "rows": report.rows,
        "quarantined": len(report.quarantined),
        "rejected": report.rejected,
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
            for found in report.findings
        ],
        "faults": report.faults,
        "warnings": [sentence for word, sentence in report.notes if word != "faulty"],
    }
    for name, content in (("validation", tree), ("great_expectations", report.results)):
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page(report, rows, rejected, target), encoding="utf-8")


def page(report: Report, rows: pd.DataFrame, rejected: list[tuple[str, str]], target: str) -> str:
    """The report as one HTML file that loads nothing."""
    outcome, _, counts = report.verdict.partition(": ")
    shown = list(report.quarantined.items())[:MANY]
    aside = [(rows["_source"].iloc[position], "; ".join(faults)) for position, faults in shown]
    facts = [name for name in rows if "." in name and name != target]
    sections = [
        _section("Faults of the table", _items([("fault", sentence) for sentence in report.faults])),
        _section("Faulty rows and warnings", _items(report.notes)),
        _section("Expectations", _table(("", "Of", "Allowed", "Seen", "Great Expectations' name"), _lines(report))),
        _section(f"Rows by {target}", _picture(rows[target])),
        _section("Rows by official split", _picture(rows["_split"])),
        *(_section(name, _picture(rows[name])) for name in facts),
        _section("Quarantined", _table(("Source", "Why"), aside), len(report.quarantined) - len(aside)),
        _section("Rejected: could not be read", _table(("Source", "Why"), rejected[:MANY]), len(rejected) - MANY),
    ]
    return _PAGE.substitute(outcome=outcome, counts=html.escape(counts), sections="\n".join(filter(None, sections)))


def _lines(report: Report) -> list[tuple[str, ...]]:
    """A line for each expectation, those not met first."""
    words = {"critical": "✗\N{NO-BREAK SPACE}fault", "warning": "✗\N{NO-BREAK SPACE}warning"}
    return [
        (
            "✓" if found.success else words.get(found.severity, found.severity),
            found.kwargs.get("description") or found.column,
            _allowed(found) or "not missing",
            _seen(found, report.rows),
            found.name,
        )
        for found in sorted(report.findings, key=lambda found: found.success)
    ]


def _section(title: str, content: str, more: int = 0) -> str:
    rest = f"<p>and {more:,} more</p>" if more > 0 else ""
    return f"<section><h2>{html.escape(title)}</h2>{content}{rest}</section>" if content else ""


def _items(said: list[tuple[str, str]]) -> str:
    items = [
        f'<li><b class="{html.escape(word)}">{html.escape(word)}</b> {html.escape(text)}</li>' for word, text in said
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _table(heads: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    body = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>' if body else ""


def _picture(values: pd.Series) -> str:
    """Numbers as a histogram, anything else as a bar for each value."""
    from pandas.api.types import is_numeric_dtype

    if not values.notna().any():
        return "<p>none</p>"
    if values.notna().all() and values.nunique() == 1:
        return f"<p>always {html.escape(_text(_plain(values.iloc[0])))}</p>"
    return _histogram(values.dropna()) if is_numeric_dtype(values) else _bars(values)


def _bars(values: pd.Series) -> str:
    """The most frequent values, and the rarest, since those are the ones to look at."""
    counts = values.fillna("(none)").value_counts()
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    cut = [*pairs[:MANY], *pairs[max(MANY, len(pairs) - MANY) :]]
    gap = f"{len(pairs) - len(cut):,} others"
    lines = [
        f"<tr><th>{html.escape(_text(value))}</th><td>{count:,}</td>"
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
    label = f"{_text(low)} to {_text(high)}, half of the rows up to {_text(middle)}"
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


if __name__ == "__main__":
    command.run(main)
