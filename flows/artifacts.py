"""Publishes a run's metrics, plots, verdict and validation as Prefect artifacts."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.report.page import CARD


def publish(paths: Mapping[str, str], outs: Container[str]) -> None:
    """Publish those outputs of this run that are metrics, learning curves, plots, verdict or validation report.

    Args:
        paths: the paths of dvc.yaml, by name.
        outs: the paths of the stages that this run has brought up to date.
    """
    present = {name: Path(path) for name, path in paths.items() if path in outs and Path(path).exists()}
    if "metrics" in present:
        create_table_artifact(metrics_table(read_json(present["metrics"])), "millrace-metrics")
    if "curves" in present:
        create_table_artifact(read_csv(present["curves"]), "millrace-curves")
    if "plots" in present:
        create_markdown_artifact(plots_page(present["plots"]), "millrace-plots")
    if "verdict" in present:
        verdict = read_json(present["verdict"])
        title = f"{verdict['verdict']}: release {verdict['release']}"
        create_table_artifact(verdict_table(verdict), "millrace-verdict", description=title)
    if "validation" in present:
        report = read_json(present["validation"] / "validation.json")
        create_markdown_artifact(validation_page(report), "millrace-validation")


def publish_card(page: Path) -> None:
    """Publish the model card, which has the same content as the report beside it."""
    create_markdown_artifact(
        page.with_name(CARD).read_text(encoding="utf-8"), "millrace-card", description=f"The report of this run: {page}"
    )


def metrics_table(metrics: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, str]]:
    """A row for each metric, a column for each split."""
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    return [
        {"metric": name, **{split: _number(values.get(name)) for split, values in metrics.items()}} for name in names
    ]


def verdict_table(verdict: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row for each criterion."""
    return [
        {
            "criterion": criterion["name"],
            "bound": criterion["bound"],
            "value": _number(criterion["value"]),
            "outcome": "holds" if criterion["holds"] else criterion["reason"],
        }
        for criterion in verdict["criteria"]
    ]


def validation_page(report: Mapping[str, Any]) -> str:
    """The outcome as Markdown, with a line for each fault."""
    return "\n".join([f"## The data are {report['outcome']}", "", *(f"- {fault}" for fault in report["faults"])])


def plots_page(folder: Path) -> str:
    """The folder's plots as Markdown that contains them, so that it outlives the files."""
    parts = []
    for path in sorted(folder.glob("*.png")):
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f"### {path.stem}\n\n![{path.stem}](data:image/png;base64,{data})")
    return "\n\n".join(parts)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
