"""Test metrics of the presets: the median of five seeds, each trained by the stage `train` under DVC."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import workspace
from stages.settings import params

SEEDS = (0, 1, 2, 3, 4)
GOALS = {  # metric of the test split, its bound, minutes allowed for a training
    "digits": ("accuracy", 0.985, 2),
    "fashion-mnist": ("accuracy", 0.92, 10),
    "trashnet": ("accuracy", 0.75, 20),
    "adult": ("accuracy", 0.857, 5),
    "california-housing": ("rmse", 47_000.0, 5),
    "clinc150": ("accuracy", 0.90, 10),
}


def main(names: tuple[str, ...] = tuple(GOALS)) -> list[dict[str, Any]]:
    """A result for each preset whose data exist."""
    return [measure(name) for name in names if name == "digits" or (workspace.DATA / name).exists()]


def measure(preset: str) -> dict[str, Any]:
    """Prepare once, then train and evaluate with each seed. Times are CPU times of one thread."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = workspace.init(workspace.project(Path(temporary) / "project", preset=preset))
        if preset != "digits":
            shutil.copytree(workspace.DATA / preset, folder / "data" / "raw" / preset)
        for name in ("fetch", "ingest", "validate", "prepare"):
            workspace.stage(folder, name)
        metric, bound, minutes_allowed = GOALS[preset]
        figures, minutes = [], []
        for seed in SEEDS:
            params.edit({"train": {"seed": seed}}, folder / "params.yaml")
            before_s = workspace.cpu_s()
            workspace.stage(folder, "train")
            minutes.append((workspace.cpu_s() - before_s) / 60)
            workspace.stage(folder, "evaluate")
            measured = json.loads((folder / "reports" / "metrics.json").read_text())
            figures.append(measured["test"][metric])
            print(f"{preset}, seed {seed}: {figures[-1]:.6g} in {minutes[-1]:.1f} min", flush=True)
    trees = f"; boosted trees: {format_number(measured['trees'][metric])}" if "trees" in measured else ""
    middle, least, most = (format_number(choose(figures)) for choose in (statistics.median, min, max))
    bound_word = "at most" if metric == "rmse" else "at least"
    return {
        "what": f"{preset}: test {metric}, median of seeds {SEEDS[0]} to {SEEDS[-1]}",
        "figure": f"{middle} ({least} to {most})",
        "goal": f"{bound_word} {format_number(bound)} within {minutes_allowed} min",
        "with": f"longest training {max(minutes):.1f} min of one core{trees}",
    }


def format_number(figure: float) -> str:
    """A figure for people: whole from a thousand on, else with four digits."""
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"


if __name__ == "__main__":
    import sys

    for result in main(tuple(sys.argv[1:]) or tuple(GOALS)):
        print(json.dumps(result))
