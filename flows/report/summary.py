"""Collects the content of a run's report from the outputs of the stages, formatted for people, without the layout."""

from __future__ import annotations

import base64
import csv
import json
import math
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from flows.report.charts import Chart, Histogram, Interval, chart, histogram, interval
from flows.report.formats import counted, interval_ends, number, total_size
from serving.triton import manifest as manifests
from serving.triton.manifest import Manifest
from stages.core.errors import UserError
from stages.evaluation.yardsticks import NAMES
from stages.gating.drift import AS_CHAMPION
from stages.gating.robustness import DISAGREEMENT, ROBUSTNESS
from stages.gating.verdict import (
    COMPARED,
    COMPARISON,
    CONTROL,
    COST,
    DATA,
    LATENCY,
    PARITY,
    SLICE,
    THRESHOLD,
    YARDSTICK,
)
from stages.gating.wording import beside
from stages.schema import Schema
from stages.tables import distributions
from stages.tables.arrays import read_summary

STATISTICS = ("statistics", "released_statistics")
HEADLINES = {"pass": "Pass", "refuse": "Refused", "needs a person": "Needs a person"}


@dataclass(frozen=True)
class Shown:
    """A criterion. `title`: its name within its group. `ends`: its interval. `limits`: smallest and largest value."""

    about: str
    name: str
    title: str
    bound: str
    value: str
    ends: str
    holds: bool
    reason: str
    note: str
    limits: Sequence[str]
    drawn: Interval | None
    champion: str
    rows: int | None = None


@dataclass(frozen=True)
class ColumnSummary:
    """A column of the data, its distances from other data, and both drawn. `missing`: the share, if any is."""

    name: str
    distances: Sequence[Shown]
    drawn: Histogram | None
    missing: str

    @property
    def holds(self) -> bool:
        """Whether all distances are within their bounds."""
        return all(distance.holds for distance in self.distances)


@dataclass(frozen=True)
class Slices:
    """A criterion for all slices by one column, worst first, drawn to one scale."""

    title: str
    bound: str
    shown: Sequence[Shown]
    note: str


@dataclass(frozen=True)
class Run:
    """The content of a report. Fields that the run did not reach are empty."""

    outcome: str
    headline: str
    lead: str
    name: str = ""
    release: str = ""
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()
    beside: str = ""  # the line about simple models
    yardsticks: Sequence[tuple[str, str, float]] = ()  # name, value, and the length of its bar in percent
    level: float = 0.0  # of the intervals
    criteria: Sequence[Shown] = ()
    served: Sequence[Shown] = ()
    champion: str = ""
    better: Sequence[str] = ()  # metrics
    against: Sequence[Shown] = ()
    differing: Sequence[Shown] = ()
    differences: str = ""  # a PNG as a data URL
    robustness: Sequence[Shown] = ()
    slices: Sequence[Slices] = ()
    not_sliced: Sequence[str] = ()  # notes on slices that were not judged
    controls: Sequence[Mapping[str, Any]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)  # of each split
    removed: Mapping[str, int] = field(default_factory=dict)
    features: Sequence[tuple[str, str]] = ()  # name and kind
    target: str = ""
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)  # output: its classes
    columns: Sequence[ColumnSummary] = ()  # columns that have moved first
    compared_with: str = ""  # the data they are compared with: champion or test
    unjudged: Sequence[str] = ()  # notes on the data
    charts: Sequence[Chart] = ()
    plots: Mapping[str, str] = field(default_factory=dict)  # name: a PNG as a data URL
    splits: Sequence[str] = ()
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)  # metric: its value on each of `splits`
    by_label: Sequence[tuple[str, Mapping[str, float]]] = ()  # worst first
    times: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    written: str = ""


def gather(paths: Mapping[str, Path]) -> Run:
    """Collect the content of the outputs; if the data were refused, only that.

    Raises:
        UserError: nothing has been judged yet.
    """
    data = _read(paths.get("validation"), "validation.json")
    written = f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC"
    if data.get("outcome") == "refused":
        faults, rows = counted(len(data["faults"]), "fault"), counted(data["rows"], "row")
        lead = f"{faults} in a table of {rows}. Nothing was trained."
        reasons = data["faults"]
        return Run("refuse", "Data refused", lead, reasons=reasons, data=data, commit=_commit(), written=written)
    verdict, manifest = _read(paths["verdict"]), _manifest(paths.get("manifest"))
    if not verdict:
        raise UserError("verdict-missing", "nothing has been judged yet: run `millrace run`")
    if manifest and manifest.id != verdict["release"]:
        raise UserError(
            "verdict-outdated",
            f"the verdict is on {verdict['release']}, not on the exported model: `millrace run` judges that",
        )
    times, parity = _read(paths.get("times")), _read(paths.get("answers"), "parity.json")
    criteria = [_shown(criterion, times) for criterion in verdict["criteria"]]
    return Run(
        outcome=verdict["verdict"],
        headline=HEADLINES.get(verdict["verdict"], verdict["verdict"].capitalize()),
        lead=_lead(criteria, parity.get("samples")),
        name=manifest.name if manifest else "",
        release=verdict["release"],
        **_beside(verdict.get("yardsticks")),
        level=verdict.get("level", 0.0),
        reasons=[shown.reason or shown.name for shown in criteria if not shown.holds],
        notes=[
            shown.note for shown in criteria if shown.note and shown.about not in (CONTROL, DATA) and not shown.rows
        ],
        criteria=[shown for shown in criteria if shown.about in (THRESHOLD, YARDSTICK, LATENCY, COST)],
        served=[shown for shown in criteria if shown.about == PARITY],
        champion=verdict.get("champion", ""),
        better=verdict.get("better", ()),
        against=[shown for shown in criteria if shown.about == COMPARISON and shown.name != DISAGREEMENT],
        differing=[shown for shown in criteria if shown.name == DISAGREEMENT],
        differences=_plots(paths.get("challenge")).get("differences", ""),
        robustness=[shown for shown in criteria if shown.about == ROBUSTNESS],
        slices=_slices(verdict["criteria"]),
        not_sliced=[shown.note for shown in criteria if shown.about == SLICE and shown.note and not any(shown.limits)],
        controls=[_control(control) for control in verdict.get("controls", ())],
        data=data,
        **_columns([shown for shown in criteria if shown.about == DATA], paths),
        charts=_charts(paths.get("curves")),
        plots=_plots(paths.get("plots")),
        times=times,
        sizes=_sizes(paths.get("repository")),
        sources=manifest.sources if manifest else {},
        commit=_commit(),
        written=written,
        **_contract(paths.get("schema")),
        **_split(paths.get("arrays")),
        **_measured(_read(paths.get("metrics"))),
    )


def _shown(criterion: Mapping[str, Any], times: Mapping[str, Any], among: Sequence[float | None] = ()) -> Shown:
    """Format a criterion. Latencies are not in the verdict but in `times`. `among`: see `interval`."""
    compared = criterion["name"].startswith(COMPARED) and criterion["name"] != DISAGREEMENT
    signed = compared or criterion["about"] == YARDSTICK
    value, unit = criterion["value"], ""
    if criterion["about"] == LATENCY and times:
        value, unit = times["one_client"]["p99_ms"], " ms"
    elif criterion["about"] == COST and value is None:
        ratios = (times.get("champion") or {}).get("ratios")
        value = median(ratios) if ratios else None
    ends, limits = (criterion.get(name) or (None, None) for name in ("interval", "limits"))
    return Shown(
        criterion["about"],
        criterion["name"],
        criterion["name"].removeprefix(COMPARED).removeprefix("served: "),
        criterion["bound"],
        "" if value is None else number(value, signed=signed) + unit,
        interval_ends(ends, signed=signed),
        criterion["holds"],
        criterion["reason"],
        criterion.get("note", ""),
        [number(limit, signed=signed) for limit in limits],
        interval(value, ends, limits, zero=compared, among=among),
        number(criterion.get("champion")),
        criterion.get("rows"),
    )


def _beside(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The simple models' metric and this model's, as a line and as bars."""
    if not found:
        return {}
    values = {**found["values"], "this model": found["value"]}
    most = max((value for value in values.values() if value is not None), default=0.0)
    bars = [
        (name, number(value), 100 * max(value or 0.0, 0.0) / most if most > 0 else 0.0)
        for name, value in values.items()
    ]
    return {"beside": beside(found), "yardsticks": bars}


def _columns(criteria: Sequence[Shown], paths: Mapping[str, Path]) -> dict[str, Any]:
    """The columns of the data, drawn with the champion's if they were compared, else with the test rows."""
    new, old = ({} if path is None else distributions.load(path) for path in map(_existing, map(paths.get, STATISTICS)))
    compared = any(shown.title.endswith(f": {AS_CHAMPION}") and shown.value for shown in criteria)
    columns = []
    for name, splits in new.items():
        distances = [shown for shown in criteria if shown.name.rpartition(": ")[0] == name]
        other = old.get(name, {}).get("train") if compared else splits["test"]
        train = splits["train"]
        missing = number(train.missing / train.rows) if train.missing else ""
        columns.append(ColumnSummary(name, distances, histogram(train, other or train), missing))
    return {
        "columns": sorted(columns, key=lambda column: column.holds),
        "compared_with": "champion" if compared else "test",
        "unjudged": [shown.note for shown in criteria if shown.note],
    }


def _existing(path: Path | None) -> Path | None:
    return path if path and path.exists() else None


def _slices(criteria: Iterable[Mapping[str, Any]]) -> list[Slices]:
    """The judged slices by column and metric; groups with a failure first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for criterion in criteria:
        if criterion["about"] == SLICE and criterion["limits"]:
            by, value = criterion["part"]
            groups[criterion["name"].removesuffix(f" where {by} is {value}"), by].append(criterion)
    slices = []
    for (name, by), group in groups.items():
        numbers = [
            x for criterion in group for x in (criterion["value"], *(criterion["interval"] or ()), *criterion["limits"])
        ]
        worst_first = sorted(group, key=lambda criterion: (criterion["holds"], _room(criterion)))
        shown = [replace(_shown(criterion, {}, numbers), title=criterion["part"][1]) for criterion in worst_first]
        uncertain = sum(bool(criterion["note"]) for criterion in group)
        note = f"{uncertain:,} of {len(group):,} have too few rows for this margin: there the value alone decides."
        title = f"{name.removeprefix(COMPARED)} by {by}" + (COMPARED in name) * ", against the champion"
        slices.append(Slices(title, group[0]["bound"], shown, note if uncertain else ""))
    return sorted(slices, key=lambda group: group.shown[0].holds)


def _room(criterion: Mapping[str, Any]) -> float:
    """The distance of a value from the nearer bound, negative outside."""
    value, (least, most) = criterion["value"], criterion["limits"]
    if value is None:
        return -math.inf
    return min(math.inf if least is None else value - least, math.inf if most is None else most - value)


def _control(control: Mapping[str, Any]) -> dict[str, Any]:
    """A control, with its scores as text."""
    scores = [f"{name} {number(value)}" for name, value in control["scored"].items() if value is not None]
    return {**control, "scored": ", ".join(scores)}


def _lead(criteria: Sequence[Shown], samples: int | None) -> str:
    """How many criteria hold, and on how many samples they were judged."""
    failed, total = sum(not shown.holds for shown in criteria), counted(len(criteria), "criterion", "criteria")
    outcome = f"{failed:,} of {total} {'does' if failed == 1 else 'do'} not hold" if failed else f"All {total} hold"
    samples_note = f", judged on a real Triton's predictions for {counted(samples, 'test sample')}" if samples else ""
    return f"{outcome}{samples_note}."


def _charts(curves: Path | None) -> list[Chart]:
    """The losses and the first metric of the val split, by epoch."""
    if curves is None or not curves.exists():
        return []
    with curves.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
    first = next((name for name in columns if name.startswith("val_") and name != "val_loss"), None)
    losses = {"training": columns.get("train_loss", []), "validation": columns.get("val_loss", [])}
    drawn = [chart("loss", {name: column for name, column in losses.items() if column})]
    if first:
        drawn.append(chart(first.removeprefix("val_"), {"validation": columns[first]}))
    return [drawing for drawing in drawn if drawing]


def _plots(folder: Path | None) -> dict[str, str]:
    """The plots by name, as data URLs."""
    files = sorted(folder.glob("*.png")) if folder else []
    return {path.stem: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in files}


def _sizes(repository: Path | None) -> dict[str, str]:
    """The sizes on disk of the model repository and of the network."""
    files = [path for path in repository.rglob("*") if path.is_file()] if repository else []
    networks = [path for path in files if path.suffix == ".onnx"]
    return {name: total_size(part) for name, part in (("repository", files), ("network", networks)) if part}


def _manifest(path: Path | None) -> Manifest | None:
    return manifests.load(path) if path and path.exists() else None


def _contract(schema: Path | None) -> dict[str, Any]:
    """The model's features, target and outputs."""
    if schema is None or not schema.exists():
        return {}
    loaded = Schema.load(schema)
    return {
        "features": [(column.name, column.kind) for column in loaded.features],
        "target": loaded.target.name,
        "answers": {name: tensor.labels for name, tensor in loaded.outputs().items()},
    }


def _split(arrays: Path | None) -> dict[str, Any]:
    """Rows of each split, and rows that were removed."""
    if arrays is None or not arrays.exists():
        return {}
    summary = read_summary(arrays)
    return {"rows": summary["rows"], "removed": {why: count for why, count in summary["removed"].items() if count}}


def _measured(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """Metrics by split, and those of each class on the test split, worst class first."""
    names = dict.fromkeys(name for values in metrics.values() for name in values if "[" not in name)
    by_label: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in metrics.get("test", {}).items():
        metric, bracket, label = name.partition("[")
        if bracket and value is not None:
            by_label[label.removesuffix("]")][metric] = value
    return {
        "splits": [f"{NAMES[name].removeprefix('a ')}, test" if name in NAMES else name for name in metrics],
        "metrics": {name: [number(values.get(name)) for values in metrics.values()] for name in names},
        "by_label": sorted(by_label.items(), key=lambda pair: min(pair[1].values())),
    }


def _commit() -> str:
    """The commit, and whether tracked files other than dvc.lock differ from it; "" outside git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = head and _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    process = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return process.stdout.strip() if process.returncode == 0 else ""


def _read(path: Path | None, inside: str = "") -> dict[str, Any]:
    """Read a JSON object from a stage's output; an empty one if there is none."""
    path = path and path / inside
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
