"""A new data set with default settings: what the model reaches after `data add`, beside the yardsticks.

Sets are CSV files laid by hand into data/raw/first-hour/, NAME.csv with the target in the last column; without them
nothing is measured. Below 2,000 rows the rows are split in ten ways, above in three.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import workspace
from stages.settings import params

SETS = workspace.ROOT / "data" / "raw" / "first-hour"
SMALL, FEW, MANY = 2000, 3, 10  # rows, and splits above and below
YARDSTICKS = ("constant", "linear", "trees")
METRICS = ("accuracy", "r2")
MARGIN = 0.01  # that a model may be below the best yardstick


def main(names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """A result for each set that is there, or for the named ones."""
    return [measure(path) for path in sorted(SETS.glob("*.csv")) if not names or path.stem in names]


def measure(path: Path) -> dict[str, Any]:
    """Add the set once for each split of its rows, and train and evaluate."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    figures: dict[str, list[float]] = {}
    before_s, splits = workspace.cpu_s(), MANY if len(rows) < SMALL else FEW
    for split in range(splits):
        for name, value in measure_split(path.stem, header, rows, split).items():
            figures.setdefault(name, []).append(value)
    means = {name: statistics.fmean(values) for name, values in figures.items()}
    best = max(means[name] for name in YARDSTICKS if name in means)
    shown = " · ".join(f"{name} {means[name]:.3f}" for name in (*YARDSTICKS, "calibration error") if name in means)
    return {
        "what": f"{path.stem}, {len(rows):,} rows: {figures_metric(header, means)}mean of {splits} splits",
        "figure": f"{means['this model']:.3f}, {means['this model'] - best:+.3f} from the best yardstick",
        "goal": f"at least {-MARGIN:+g}",
        "with": f"{shown}; {(workspace.cpu_s() - before_s) / splits:.0f} s of CPU for each",
    }


def figures_metric(header: list[str], means: dict[str, float]) -> str:
    """The metric, by what was measured."""
    return f"{'accuracy' if 'calibration error' in means else 'r2'} of {header[-1]}, "


def measure_split(name: str, header: list[str], rows: list[list[str]], seed: int) -> dict[str, float]:
    """Test figures of the model and of the yardsticks for one split of the rows."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = workspace.init(workspace.project(Path(temporary) / "project"))
        table = Path(temporary) / f"{name}.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["part_of_split", *header])
            for row in rows:
                part = chance.choices(["train", "val", "test"], [0.7, 0.1, 0.2])[0]
                writer.writerow([part, *row])
        command = (sys.executable, "-m", "flows.intake.add", f"--target={header[-1]}", "--", str(table))
        workspace.timed(folder, *command)
        features = dict(params.parse(folder / "params.yaml").schema.features)
        features.pop("part_of_split", None)
        params.edit(
            {"schema": {"features": features}, "split": {"by": "column", "column": "part_of_split"}},
            folder / "params.yaml",
        )
        for stage in ("code", "ingest", "validate", "prepare", "train", "evaluate"):
            workspace.stage(folder, stage)
        measured = json.loads((folder / "reports" / "metrics.json").read_text(encoding="utf-8"))
    metric = next(metric for metric in METRICS if metric in measured["test"])
    figures = {"this model": measured["test"][metric]}
    figures |= {kept: measured[kept][metric] for kept in YARDSTICKS if kept in measured}
    if "calibration_error" in measured["test"]:
        figures["calibration error"] = measured["test"]["calibration_error"]
    return figures


if __name__ == "__main__":
    for result in main(tuple(sys.argv[1:])):
        print(json.dumps(result), flush=True)
