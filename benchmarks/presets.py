"""Test accuracy of the presets that ship: the median of five seeds, each trained by the train stage under DVC."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import workspace
from stages import params

SEEDS = (0, 1, 2, 3, 4)
GOALS = {"digits": 0.985, "fashion-mnist": 0.92, "trashnet": 0.75}
MINUTES = {"digits": 2, "fashion-mnist": 10, "trashnet": 20}


def main(names: tuple[str, ...] = tuple(GOALS)) -> list[dict[str, Any]]:
    """A result for each preset whose data are there."""
    return [measure(name) for name in names if name == "digits" or (workspace.DATA / name).exists()]


def measure(preset: str) -> dict[str, Any]:
    """Prepare once; then train and evaluate with each seed. Time is that of the CPU: each trains with one thread."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = workspace.init(workspace.project(Path(temporary) / "project", preset=preset))
        if preset != "digits":
            shutil.copytree(workspace.DATA / preset, folder / "data" / "raw" / preset)
        for name in ("fetch", "ingest", "validate", "prepare"):
            workspace.stage(folder, name)
        accuracies, minutes = [], []
        for seed in SEEDS:
            params.edit({"train": {"seed": seed}}, folder / "params.yaml")
            before_s = workspace.cpu_s()
            workspace.stage(folder, "train")
            minutes.append((workspace.cpu_s() - before_s) / 60)
            workspace.stage(folder, "evaluate")
            accuracies.append(json.loads((folder / "reports" / "metrics.json").read_text())["test"]["accuracy"])
            print(f"{preset}, seed {seed}: {accuracies[-1]:.4f} in {minutes[-1]:.1f} min", flush=True)
    return {
        "what": f"{preset}: test accuracy, median of seeds {SEEDS[0]} to {SEEDS[-1]}",
        "figure": f"{statistics.median(accuracies):.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})",
        "goal": f"at least {GOALS[preset]} within {MINUTES[preset]} min",
        "with": f"longest training {max(minutes):.1f} min of one core",
    }


if __name__ == "__main__":
    import sys

    for result in main(tuple(sys.argv[1:]) or tuple(GOALS)):
        print(json.dumps(result))
