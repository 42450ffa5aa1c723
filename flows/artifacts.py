"""What a run publishes in Prefect: metrics, plots, the verdict, and what was wrong with the data."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from flows.report.page import CARD


def publish(paths: Mapping[str, str], outs: Container[str]) -> None:
    """As Prefect artifacts: those of this run's outputs that are metrics, plots, verdict or report on the data."""
    fresh = {name: Path(path) for name, path in paths.items() if path in outs and Path(path).exists()}
    if "metrics" in fresh:
        create_markdown_artifact(metrics_table(read_json(fresh["metrics"])), "millrace-metrics")
    if "plots" in fresh:
        curves = [fresh["curves"]] if "curves" in fresh else []
        create_markdown_artifact(plots_page(fresh["plots"], curves), "millrace-plots")
    if "verdict" in fresh:
        create_markdown_artifact(verdict_table(read_json(fresh["verdict"])), "millrace-verdict")
    if "validation" in fresh:
        create_markdown_artifact(
            validation_page(read_json(fresh["validation"] / "validation.json")), "millrace-validation"
        )


def publish_card(page: Path) -> None:
    """As a Prefect artifact: the model card, which says what the page beside it shows."""
    create_markdown_artifact(
        page.with_name(CARD).read_text(encoding="utf-8"), "millrace-card", description=f"The page of this run: {page}"
    )


def metrics_table(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    """A row for each metric, a column for each split."""
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    rows = [[name, *(_figure(values.get(name)) for values in metrics.values())] for name in names]
    return _table(["metric", *metrics], rows)


def verdict_table(verdict: Mapping[str, Any]) -> str:
    """The verdict and each criterion."""
    rows = [
        [said["name"], said["bound"], _figure(said["value"]), "holds" if said["holds"] else f"**{said['reason']}**"]
        for said in verdict["criteria"]
    ]
    title = f"## {verdict['verdict']}: release {verdict['release']}"
    return f"{title}\n\n{_table(['criterion', 'bound', 'value', ''], rows)}"


def validation_page(report: Mapping[str, Any]) -> str:
    """The outcome, and a line for each fault."""
    return "\n".join([f"## The data are {report['outcome']}", "", *(f"- {fault}" for fault in report["faults"])])


def plots_page(folder: Path, tables: Iterable[Path]) -> str:
    """The folder's pictures, whole inside the page so that they outlive it, and the tables."""
    parts = []
    for path in sorted(folder.glob("*.png")):
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f"### {path.stem}\n\n![{path.stem}](data:image/png;base64,{data})")
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            heading, *rows = csv.reader(file)
        parts.append(f"### {path.stem}\n\n{_table(heading, rows)}")
    return "\n\n".join(parts)


def read_json(path: Path) -> Any:
    """A file's content."""
    return json.loads(path.read_text(encoding="utf-8"))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
