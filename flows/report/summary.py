"""What is to be said of a run, from the outputs of its stages: everything as people read it, nothing of its looks."""

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
from serving.triton import manifest as manifests
from serving.triton.manifest import Manifest
from stages.core.errors import UserError
from stages.gating.drift import AS_CHAMPION
from stages.gating.robustness import DISAGREEMENT, ROBUSTNESS
from stages.gating.verdict import COMPARED, COMPARISON, CONTROL, COST, DATA, LATENCY, PARITY, SLICE, THRESHOLD
from stages.schema import Schema
from stages.tables import distributions
from stages.tables.arrays import read_summary

UNITS = ("bytes", "kB", "MB", "GB")
STATISTICS = ("statistics", "released_statistics")
HEADLINES = {"pass": "Pass", "refuse": "Refused", "needs a person": "Needs a person"}


@dataclass(frozen=True)
class Shown:
    """A criterion. `title`: its name within its group; `ends`: its interval; `limits`: the least and the most."""

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
class Told:
    """A column of the data, how far it is from other data, and both drawn; `missing`: the share, if any is."""

    name: str
    distances: Sequence[Shown]
    drawn: Histogram | None
    missing: str

    @property
    def holds(self) -> bool:
        return all(each.holds for each in self.distances)


@dataclass(frozen=True)
class Slices:
    """One criterion of all the slices by one column, the worst first, drawn to one scale."""

    title: str
    bound: str
    shown: Sequence[Shown]
    note: str


@dataclass(frozen=True)
class Run:
    """A run. What it did not come to is empty."""

    outcome: str
    headline: str
    lead: str
    name: str = ""
    release: str = ""
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()
    level: float = 0.0  # of the intervals
    criteria: Sequence[Shown] = ()
    served: Sequence[Shown] = ()
    champion: str = ""
    better: Sequence[str] = ()  # metrics
    against: Sequence[Shown] = ()
    differing: Sequence[Shown] = ()
    differences: str = ""  # the PNG as an address that needs no network
    robustness: Sequence[Shown] = ()
    slices: Sequence[Slices] = ()
    not_sliced: Sequence[str] = ()  # what is said of slices that were not judged
    controls: Sequence[Mapping[str, Any]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)  # of each split
    removed: Mapping[str, int] = field(default_factory=dict)
    features: Sequence[tuple[str, str]] = ()  # name and kind
    target: str = ""
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)  # output: its labels
    columns: Sequence[Told] = ()  # what has moved first
    beside: str = ""  # which data theirs are drawn beside
    unjudged: Sequence[str] = ()  # of the data
    charts: Sequence[Chart] = ()
    plots: Mapping[str, str] = field(default_factory=dict)  # name: the PNG as an address that needs no network
    splits: Sequence[str] = ()
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)  # metric: its value on each of `splits`
    by_label: Sequence[tuple[str, Mapping[str, float]]] = ()  # the worst first
    times: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    written: str = ""


def gather(paths: Mapping[str, Path]) -> Run:
    """All that the outputs under these names say; where the data were refused, that alone.

    Raises:
        UserError: nothing was judged yet.
    """
    data = _read(paths.get("validation"), "validation.json")
    written = f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC"
    if data.get("outcome") == "refused":
        lead = (
            f"{_count(len(data['faults']), 'fault')} in a table of {_count(data['rows'], 'row')}. Nothing was trained."
        )
        reasons = data["faults"]
        return Run("refuse", "Data refused", lead, reasons=reasons, data=data, commit=_commit(), written=written)
    verdict, manifest = _read(paths["verdict"]), _manifest(paths.get("manifest"))
    if not verdict:
        raise UserError("nothing was judged yet: `millrace run` gives a verdict")
    if manifest and manifest.id != verdict["release"]:
        raise UserError(f"the verdict is on {verdict['release']}, not on what is exported: `millrace run` judges that")
    times, parity = _read(paths.get("times")), _read(paths.get("answers"), "parity.json")
    criteria = [_shown(criterion, times) for criterion in verdict["criteria"]]
    return Run(
        outcome=verdict["verdict"],
        headline=HEADLINES.get(verdict["verdict"], verdict["verdict"].capitalize()),
        lead=_lead(criteria, parity.get("samples")),
        name=manifest.name if manifest else "",
        release=verdict["release"],
        level=verdict.get("level", 0.0),
        reasons=[each.reason or each.name for each in criteria if not each.holds],
        notes=[each.note for each in criteria if each.note and each.about not in (CONTROL, DATA) and not each.rows],
        criteria=[each for each in criteria if each.about in (THRESHOLD, LATENCY, COST)],
        served=[each for each in criteria if each.about == PARITY],
        champion=verdict.get("champion", ""),
        better=verdict.get("better", ()),
        against=[each for each in criteria if each.about == COMPARISON and each.name != DISAGREEMENT],
        differing=[each for each in criteria if each.name == DISAGREEMENT],
        differences=_plots(paths.get("challenge")).get("differences", ""),
        robustness=[each for each in criteria if each.about == ROBUSTNESS],
        slices=_slices(verdict["criteria"]),
        not_sliced=[each.note for each in criteria if each.about == SLICE and each.note and not any(each.limits)],
        controls=[_control(control) for control in verdict.get("controls", ())],
        data=data,
        **_columns([each for each in criteria if each.about == DATA], paths),
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
    """As the verdict has it; the time, which is not in there, from where it was measured. `among`: see `interval`."""
    compared = criterion["name"].startswith(COMPARED) and criterion["name"] != DISAGREEMENT
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
        "" if value is None else number(value, signed=compared) + unit,
        _ends(ends, signed=compared),
        criterion["holds"],
        criterion["reason"],
        criterion.get("note", ""),
        [number(limit, signed=compared) for limit in limits],
        interval(value, ends, limits, zero=compared, among=among),
        number(criterion.get("champion")),
        criterion.get("rows"),
    )


def _columns(criteria: Sequence[Shown], paths: Mapping[str, Path]) -> dict[str, Any]:
    """The columns of the data, drawn beside the champion's where these were compared, else beside the test rows."""
    new, old = ({} if path is None else distributions.load(path) for path in map(_there, map(paths.get, STATISTICS)))
    compared = any(each.title.endswith(f": {AS_CHAMPION}") and each.value for each in criteria)
    told = []
    for name, splits in new.items():
        own = [each for each in criteria if each.name.rpartition(": ")[0] == name]
        other = old.get(name, {}).get("train") if compared else splits["test"]
        train = splits["train"]
        missing = number(train.missing / train.rows) if train.missing else ""
        told.append(Told(name, own, histogram(train, other or train), missing))
    return {
        "columns": sorted(told, key=lambda each: each.holds),
        "beside": "champion" if compared else "test",
        "unjudged": [each.note for each in criteria if each.note],
    }


def _there(path: Path | None) -> Path | None:
    return path if path and path.exists() else None


def _slices(criteria: Iterable[Mapping[str, Any]]) -> list[Slices]:
    """Those that were judged, by column and metric; first where one does not hold."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for each in criteria:
        if each["about"] == SLICE and each["limits"]:
            by, value = each["part"]
            groups[each["name"].removesuffix(f" where {by} is {value}"), by].append(each)
    found = []
    for (name, by), group in groups.items():
        numbers = [x for each in group for x in (each["value"], *(each["interval"] or ()), *each["limits"])]
        worst_first = sorted(group, key=lambda each: (each["holds"], _room(each)))
        shown = [replace(_shown(each, {}, numbers), title=each["part"][1]) for each in worst_first]
        few = sum(bool(each["note"]) for each in group)
        note = f"{few:,} of {len(group):,} have too few rows to tell this margin: there the value alone decides."
        title = f"{name.removeprefix(COMPARED)} by {by}" + (COMPARED in name) * ", against the champion"
        found.append(Slices(title, group[0]["bound"], shown, note if few else ""))
    return sorted(found, key=lambda each: each.shown[0].holds)


def _room(criterion: Mapping[str, Any]) -> float:
    """How far within its bounds a value lies."""
    value, (least, most) = criterion["value"], criterion["limits"]
    if value is None:
        return -math.inf
    return min(math.inf if least is None else value - least, math.inf if most is None else most - value)


def _control(control: Mapping[str, Any]) -> dict[str, Any]:
    """One model that is bad on purpose, with its scores as words."""
    scores = [f"{name} {number(value)}" for name, value in control["scored"].items() if value is not None]
    return {**control, "scored": ", ".join(scores)}


def _lead(criteria: Sequence[Shown], samples: int | None) -> str:
    """How many criteria hold, and on what they were judged."""
    failed, of = sum(not each.holds for each in criteria), _count(len(criteria), "criterion", "criteria")
    said = f"{failed:,} of {of} {'does' if failed == 1 else 'do'} not hold" if failed else f"All {of} hold"
    on = f", judged on what a real Triton answered to {_count(samples, 'test sample')}" if samples else ""
    return f"{said}{on}."


def _charts(curves: Path | None) -> list[Chart]:
    """The losses, and the first metric of the val split, by epoch."""
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
    return [each for each in drawn if each]


def _plots(folder: Path | None) -> dict[str, str]:
    """The pictures that were drawn of the answers, by name; the curves are drawn anew, for any width and light."""
    found = sorted(folder.glob("*.png")) if folder else []
    return {
        path.stem: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        for path in found
        if path.stem != "curves"
    }


def _sizes(repository: Path | None) -> dict[str, str]:
    """What is served on disk: all of it, and the network."""
    files = [path for path in repository.rglob("*") if path.is_file()] if repository else []
    networks = [path for path in files if path.suffix == ".onnx"]
    return {what: _bytes(some) for what, some in (("repository", files), ("network", networks)) if some}


def _manifest(path: Path | None) -> Manifest | None:
    return manifests.load(path) if path and path.exists() else None


def _contract(schema: Path | None) -> dict[str, Any]:
    """What the model takes and what it answers."""
    if schema is None or not schema.exists():
        return {}
    fitted = Schema.load(schema)
    return {
        "features": [(column.name, column.kind) for column in fitted.features],
        "target": fitted.target.name,
        "answers": {name: tensor.labels for name, tensor in fitted.outputs().items()},
    }


def _split(arrays: Path | None) -> dict[str, Any]:
    """Rows of each split, and those that were left out."""
    if arrays is None or not arrays.exists():
        return {}
    summary = read_summary(arrays)
    return {"rows": summary["rows"], "removed": {why: count for why, count in summary["removed"].items() if count}}


def _measured(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """Metrics of the whole, by split; and those of each label on the test split, the worst label first."""
    names = dict.fromkeys(name for values in metrics.values() for name in values if "[" not in name)
    by_label: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in metrics.get("test", {}).items():
        metric, bracket, label = name.partition("[")
        if bracket and value is not None:
            by_label[label.removesuffix("]")][metric] = value
    return {
        "splits": ["boosted trees, test" if name == "trees" else name for name in metrics],
        "metrics": {name: [number(values.get(name)) for values in metrics.values()] for name in names},
        "by_label": sorted(by_label.items(), key=lambda pair: min(pair[1].values())),
    }


def _commit() -> str:
    """What is checked out, and whether tracked files are otherwise, but for what every run changes; "" outside git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = head and _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def number(value: float | None, signed: bool = False) -> str:
    """For people: four digits that count, or all before the point."""
    if value is None:
        return ""
    text = f"{abs(value):,.0f}" if abs(value) >= 10_000 else f"{abs(value):.4g}"
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def _ends(ends: Sequence[float | None], signed: bool) -> str:
    low, high = (number(end, signed) for end in ends)
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""


def _bytes(files: Iterable[Path]) -> str:
    size = sum(path.stat().st_size for path in files)
    power = next(power for power in range(4) if size < 1000 ** (power + 1) or power == 3)
    amount = size / 1000**power
    return f"{amount:.0f} {UNITS[power]}" if amount >= 100 else f"{amount:.3g} {UNITS[power]}"


def _count(many: int, one: str, more: str = "") -> str:
    return f"{many:,} {one if many == 1 else more or one + 's'}"


def _read(path: Path | None, inside: str = "") -> dict[str, Any]:
    """A JSON object from a stage's output; an empty one where there is none."""
    path = path and path / inside
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
