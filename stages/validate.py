"""Check every row with Great Expectations: quarantine faulty rows, refuse a faulty table, and report both."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import csv
import json
import logging
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.errors import Refused, UserError
from stages.core.files import replacing
from stages.schema import Schema, kind
from stages.settings import params, section, sections
from stages.tables.table import keys
from stages.validation import expectations, near_duplicates
from stages.validation import leaks as leaks_
from stages.validation.counts import distinct, sizes
from stages.validation.expectations import Suite
from stages.validation.page import page
from stages.validation.report import Finding, Report, fault_sentence, plain, row_faults, summary

if TYPE_CHECKING:
    import pandas as pd

FEW = 5  # sources and values of a fault that are shown


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    schema: sections.Schema
    validate: sections.Validate


def main(table: Path, rejects: Path, validation: Path, quarantine: Path) -> None:
    """Report on the table and quarantine its faulty rows; refuse it (exit code 3) if it is faulty as a whole."""
    parameters = params.load("validate", Parameters)
    threading.Thread(target=_great_expectations).start()  # the import takes seconds: read the table meanwhile
    declared = sections.declared(parameters.schema.features, parameters.schema.target)
    suite = build(declared, parameters.validate.columns)
    rows, rejected = read(table, declared, suite), read_rejects(rejects)
    limits = {"quarantined": parameters.validate.max_quarantined, "rejected": parameters.validate.max_rejected}
    most = parameters.validate.max_leakage
    leaks = (parameters.validate.warn_leakage, math.inf if most == "none" else most)
    report = check(rows, rejected, declared, suite, parameters.validate.min_rows, limits, leaks)
    with replacing(quarantine) as whole:
        write_quarantine(whole, table, report.quarantined)
    with replacing(validation) as folder:
        write_report(folder, report, rows, rejected, declared.target.name)
    print(summary(report))
    if report.failed:
        raise Refused("data-refused", f"the data are refused: {'; '.join(report.faults)}: see {validation}/index.html")


def build(declared: Schema, columns: Mapping[str, dict[str, Any]]) -> Suite:
    """The expectations of every table, of each feature and of the target.

    Raises:
        ValueError: `validate.columns` has an option that the expectations of its column do not know.
    """
    with_id = {"column": "_id", "min_value": 1.0, "description": "share of rows with an id"}
    splits = {"column": "_split", "value_set": ["train", "val", "test"]}
    copies = {"column": "_copies", "max_value": 1, "description": "number of rows with this sample"}
    alike = {"column": "_alike", "max_value": 1, "description": "number of samples nearly like this one"}
    several = {"column": "_splits", "max_value": 1, "description": "number of official splits with this sample"}
    suite: Suite = [
        ("expect_column_proportion_of_non_null_values_to_be_between", with_id),
        ("expect_column_distinct_values_to_be_in_set", splits),
        # Only warnings: prepare removes the training copy of a sample in two splits, and other copies do no harm.
        ("expect_column_values_to_be_between", {**copies, "severity": "warning"}),
        ("expect_column_values_to_be_between", {**several, "severity": "warning"}),
    ]
    if len(_values(declared)) == len(declared.features):  # files are not loaded for a comparison
        suite.append(("expect_column_values_to_be_between", {**alike, "severity": "warning"}))
    for column in (*declared.features, declared.target):
        module = expectations.of(column.kind)
        options = sections.options(module, columns.get(column.name, {}), f"validate.columns.{column.name}")
        suite += module.expectations(column.name, options)
    return suite


def read(path: Path, declared: Schema, suite: Suite) -> pd.DataFrame:
    """The small columns of the table: its own, the target, values, facts, and any other that the suite names.

    They are read one by one, as text is twice in memory while it is read. Ids become numbers, to save memory and time.

    Raises:
        UserError: the table lacks a column that every table has.
    """
    import pandas as pd
    from pyarrow import parquet

    with parquet.ParquetFile(path) as table:
        names = table.schema_arrow.names
        own = ["_id", "_split", "_source", declared.target.name]
        for name in own:
            if name not in names:
                raise UserError("data-table-outdated", f"{path} has no column {name!r}: run ingest again")
        facts = [name for column in declared.features for name in names if name.startswith(f"{column.name}.")]
        judged = [*_values(declared), *(kwargs.get("column") for _, kwargs in suite)]
        present = [name for name in judged if name in names]
        rows = {}
        for name in dict.fromkeys(own + facts + present):
            cells = table.read(columns=[name]).column(name)
            rows[name] = (
                pd.Series(keys(cells)).mask(cells.is_null().to_pandas()) if name == "_id" else cells.to_pandas()
            )
    return pd.DataFrame(rows, copy=False)


def _values(declared: Schema) -> list[str]:
    """The features with values in the table, rather than the bytes of files, which have facts instead."""
    return [column.name for column in declared.features if kind(column.kind).RAW != "bytes"]


def read_rejects(path: Path) -> list[tuple[str, str]]:
    """Source and reason of each sample that could not be read."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [(row["source"], row["reason"]) for row in csv.DictReader(file)]


def check(
    rows: pd.DataFrame,
    rejected: list[tuple[str, str]],
    declared: Schema,
    suite: Suite,
    min_rows: int,
    limits: Mapping[str, float],
    leaks: tuple[float, float] = (1.0, math.inf),
) -> Report:
    """Validate each row, then the shares of samples lost, then the table without the quarantined rows.

    If more rows than the limit are faulty, none is quarantined and the whole table is validated.

    Args:
        leaks: the share of the target's error that a column may remove, without a warning and at all.
    """
    target = declared.target.name
    full = derive(rows, target)
    if {column.name for column in declared.features} <= set(full):
        full = compare(full, _values(declared))
    of_rows, of_table = _parted(suite)
    findings, row_results = _validate("rows", full, of_rows)
    quarantined = row_faults(full, findings)
    shares = {
        "quarantined": len(quarantined) / max(1, len(rows)),
        "rejected": len(rejected) / max(1, len(rows) + len(rejected)),
    }
    examples = {
        "quarantined": tuple(rows["_source"].iloc[list(quarantined)[:FEW]]),
        "rejected": tuple(source for source, _ in rejected[:FEW]),
    }
    lost, share_results = _validate_shares(shares, limits, examples)
    removed = quarantined if shares["quarantined"] <= limits["quarantined"] else {}
    accepted = derive(full.drop(index=list(removed)).reset_index(drop=True), target) if removed else full
    # In Great Expectations an empty table meets all expectations of rows, and has no minimum.
    enough = {"min_value": max(1, min_rows), "description": "number of rows" + (" left" if removed else "")}
    of_table = [("expect_table_row_count_to_be_between", enough), *(of_table if len(accepted) else [])]
    whole, table_results = _validate("table", accepted, of_table)
    leaks_found, leakage_results = _validate_values("leakage", *leaks_.expected(accepted, target, *leaks))
    label_suite, label_values = near_duplicates.expected(accepted[target], target)
    alike, label_results = _validate_values("labels", label_suite, label_values) if label_suite else ([], {})
    results = {"rows": row_results, "shares": share_results, "table": table_results, "leakage": leakage_results}
    results |= {"labels": label_results} if alike else {}
    return Report(len(rows), len(rejected), quarantined, [*whole, *lost, *leaks_found, *alike, *findings], results)


def derive(rows: pd.DataFrame, target: str) -> pd.DataFrame:
    """Add columns that count over the whole table.

    `_copies`: rows with the same id. `_labels`, `_splits`: distinct targets and official splits of the id.
    `_peers`: rows with the same target.
    """
    import numpy as np
    import pandas as pd

    ids, labels, splits = (pd.factorize(rows[name])[0].astype(np.int64) for name in ("_id", target, "_split"))
    return rows.assign(
        _id=np.where(ids < 0, np.nan, ids),
        _copies=sizes(ids),
        _labels=distinct(ids, labels),
        _splits=distinct(ids, splits),
        _peers=np.where(labels < 0, np.nan, sizes(labels)),
    )


def compare(rows: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    """Add `_form`, equal for rows that differ only trivially, and `_alike`, the number of distinct ids with a form."""
    import numpy as np

    forms = near_duplicates.groups(rows, features).astype(np.int64)
    ids = rows["_id"].fillna(-1).to_numpy(np.int64)
    return rows.assign(_form=forms, _alike=distinct(forms, ids))


def _great_expectations() -> Any:
    """Import the library, silent and without telemetry. The import takes seconds."""
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

    rows = [(name, kwargs) for name, kwargs in suite if of_rows(name)]
    return rows, [(name, kwargs) for name, kwargs in suite if not of_rows(name)]


def _validate(name: str, rows: pd.DataFrame, suite: Suite) -> tuple[list[Finding], dict[str, Any]]:
    """Findings in the order of the suite, and Great Expectations' result."""
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl
    from great_expectations.validator.v1_validator import Validator

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    whole = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    expected = [
        get_expectation_impl(kind)(**kwargs, meta={"order": order}) for order, (kind, kwargs) in enumerate(suite)
    ]
    # It hashes its input: pass only the columns that it needs, and once (`Batch.validate` would hash them twice).
    named = [column for column in rows if column in {kwargs.get("column") for _, kwargs in suite}]
    form = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
    validator = Validator(whole, form, {"dataframe": rows[named]})
    validated = validator.validate_expectation_suite(gx.ExpectationSuite(name, expectations=expected))
    validated_results: list[Any] = validated.results
    results = sorted(validated_results, key=lambda result: result.expectation_config.meta["order"])
    findings = [_finding(rows, *expectation, result) for expectation, result in zip(suite, results, strict=True)]
    return findings, {"statistics": validated.statistics, "results": [_reproducible(result) for result in results]}


def _validate_shares(
    shares: dict[str, float], limits: Mapping[str, float], examples: Mapping[str, tuple[str, ...]]
) -> tuple[list[Finding], dict[str, Any]]:
    """`_validate` for a table of one row: the shares of samples quarantined and rejected."""
    import pandas as pd

    what = {"quarantined": "share of rows quarantined", "rejected": "share of samples that could not be read"}
    suite: Suite = [
        ("expect_column_max_to_be_between", {"column": name, "max_value": limits[name], "description": what[name]})
        for name in shares
    ]
    findings, results = _validate("shares", pd.DataFrame([shares]), suite)
    return [found if found.success else replace(found, sources=examples[found.column]) for found in findings], results


def _validate_values(name: str, suite: Suite, values: Mapping[str, float]) -> tuple[list[Finding], dict[str, Any]]:
    """`_validate` for a table of one row: a value for each name."""
    import pandas as pd

    return _validate(name, pd.DataFrame([values]), suite)


def _finding(rows: pd.DataFrame, name: str, kwargs: dict[str, Any], result: Any) -> Finding:
    column, details, success = kwargs.get("column"), result.result, bool(result.success)
    if "unexpected_index_list" in details:
        positions = tuple(details["unexpected_index_list"])
        values = [plain(item["value"]) for item in details["partial_unexpected_counts"]][:FEW]
        first = fault_sentence(name, kwargs, plain(rows[column].iloc[positions[0]])) if positions else ""
        return Finding(name, kwargs, True, success, values, first, positions, _sources(rows, positions))
    if "observed_value" not in details:  # Great Expectations raised an error inside
        what = f"{column} is not in the table" if column not in rows else f"{column} cannot be judged by {name}"
        return Finding(name, kwargs, False, False, None, what)
    observed = plain(details["observed_value"])
    if observed is None and not success:  # for a set of values it reports only the unexpected ones
        observed = plain(details.get("partial_unexpected_list"))
    if success:
        return Finding(name, kwargs, False, True, observed)
    positions = _offenders(rows, name, kwargs)
    return Finding(
        name,
        kwargs,
        False,
        False,
        observed,
        fault_sentence(name, kwargs, observed),
        positions,
        _sources(rows, positions),
    )


def _offenders(rows: pd.DataFrame, name: str, kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The positions of the rows that violate an expectation of a column's minimum, maximum or set of values."""
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
    """The sources of a few rows, sorted so that copies and near duplicates are adjacent."""
    if "_source" not in rows:
        return ()
    order = [name for name in ("_form", "_id") if name in rows]
    return tuple(rows.iloc[list(positions)].sort_values(order, kind="stable")["_source"].iloc[:FEW])


def _reproducible(result: Any) -> dict[str, Any]:
    """A result of Great Expectations without parts that are long, random, or specific to this machine."""
    for long in ("unexpected_list", "unexpected_index_list", "unexpected_index_query"):
        result.result.pop(long, None)
    tree: dict[str, Any] = result.to_json_dict()
    errors = [error for error in tree.pop("exception_info").values() if isinstance(error, dict)]
    return tree | {"errors": [error["exception_message"] for error in errors]}


def write_quarantine(path: Path, table: Path, quarantined: Mapping[int, list[str]]) -> None:
    """Write a line for each quarantined row: its id, its source, and its faults."""
    from pyarrow import parquet

    columns = parquet.read_table(table, columns=["_id", "_source"] if quarantined else [])
    chosen = columns.take(list(quarantined)).to_pylist()
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "source", "reasons"))
        for row, faults in zip(chosen, quarantined.values(), strict=True):
            writer.writerow((*row.values(), "; ".join(faults)))


def write_report(
    folder: Path, report: Report, rows: pd.DataFrame, rejected: list[tuple[str, str]], target: str
) -> None:
    """Write `index.html` for people, `validation.json` for programs, and Great Expectations' own results."""
    folder.mkdir()
    for name, content in (("validation", report.tree), ("great_expectations", report.results)):
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page(report, rows, rejected, target), encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
