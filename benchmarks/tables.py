"""A large CSV through ingest, validate and prepare: rows per second, peak memory, and the growth of time.

All are complete commands, including the start of Python and the imports.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workspace

ROWS, FEWER = 2_000_000, 200_000
NUMBERS, CATEGORIES, LABELS = 22, 7, 3
MISSING = 0.01  # of the features' cells
BATCH = 100_000  # rows that are generated at a time
COMMANDS = {
    "ingest": ("data/raw/table.csv", "data/table.parquet", "data/rejects.csv"),
    "validate": ("data/table.parquet", "data/rejects.csv", "reports/validation", "data/quarantine.csv"),
    "prepare": ("data/table.parquet", "data/quarantine.csv", "data/arrays", "data/schema.json"),
}


def main() -> list[dict[str, Any]]:
    """Rows per second over all stages, the largest memory, and the time per row relative to a tenth of the rows."""
    with tempfile.TemporaryDirectory() as temporary:
        few, many = (measure(make(Path(temporary) / str(rows), rows)) for rows in (FEWER, ROWS))
    taken_s, fewer_s = (sum(seconds for seconds, _ in stages.values()) for stages in (many, few))
    largest = max(many, key=lambda stage: many[stage][1])
    seconds_by_stage = ", ".join(f"{stage} {seconds:.1f} s" for stage, (seconds, _) in many.items())
    width = NUMBERS + CATEGORIES + 1
    return [
        {
            "what": f"ingest, validate and prepare of {ROWS:,} rows of {width} columns, CSV, together",
            "figure": f"{ROWS / taken_s:,.0f} rows/s",
            "goal": "at least 100,000 rows/s",
            "with": seconds_by_stage,
        },
        {
            "what": "their peak memory, all processes of a stage together",
            "figure": f"{many[largest][1] / 1024:.2f} GiB",
            "goal": "under 2 GB",
            "with": ", ".join(f"{stage} {peak:,.0f} MiB" for stage, (_, peak) in many.items()),
        },
        {
            "what": f"their time per row at {ROWS:,} rows, relative to {FEWER:,}",
            "figure": f"{taken_s / ROWS / (fewer_s / FEWER):.2f}",
            "goal": "at most 1",
            "with": f"{taken_s:.1f} s against {fewer_s:.1f}",
        },
    ]


def make(folder: Path, rows: int) -> Path:
    """A project whose raw data are one CSV file; two such files have equal first rows."""
    import pyarrow as pa
    from pyarrow import csv

    names = {f"n{i:02d}": "number" for i in range(NUMBERS)} | {f"c{i}": "category" for i in range(CATEGORIES)}
    changes = {
        "data": {"path": "data/raw/table.csv", "format": "csv"},
        "schema": {"features": names, "target": {"label": "class"}},
    }
    project = workspace.project(folder, changes)
    (project / "data" / "raw").mkdir(parents=True)
    schema = pa.schema(
        dict.fromkeys(list(names)[:NUMBERS], pa.float64()) | dict.fromkeys([*names][NUMBERS:], pa.string())
    )
    schema = schema.append(pa.field("label", pa.string()))
    with csv.CSVWriter(project / "data" / "raw" / "table.csv", schema) as file:
        for first in range(0, rows, BATCH):
            file.write(pa.table(batch(np.random.default_rng(first)), schema=schema))
    return project


def batch(draw: np.random.Generator) -> dict[str, Any]:
    """The next rows: numbers with two to six decimals, words from sets of 3 to 300, classes; some cells missing."""
    import pyarrow as pa

    def column(values: np.ndarray) -> Any:
        return pa.array(values, mask=draw.random(BATCH) < MISSING)

    cells = {f"n{i:02d}": column(draw.normal(i, 10.0, BATCH).round(2 + i % 5)) for i in range(NUMBERS)}
    for i in range(CATEGORIES):
        words = np.array([f"word {number}" for number in range(3 + 49 * i)], object)
        cells[f"c{i}"] = column(words[draw.integers(0, len(words), BATCH)])
    labels = np.array([f"label {number}" for number in range(LABELS)], object)
    return cells | {"label": pa.array(labels[draw.integers(0, LABELS, BATCH)])}


def measure(project: Path) -> dict[str, tuple[float, float]]:
    """Seconds and MiB of each stage."""
    return {
        stage: workspace.watched(project, sys.executable, "-m", f"stages.{stage}", *paths)
        for stage, paths in COMMANDS.items()
    }


if __name__ == "__main__":
    for result in main():
        print(json.dumps(result))
