"""The cost of the pipeline: a whole run from scratch, the imports in it, and a run with nothing to do."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks import workspace

ROUNDS = 7


def main() -> list[dict[str, Any]]:
    """Run from scratch twice, the second time counting imports; then run both pipelines with nothing to do, in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        ours = workspace.init(workspace.project(Path(temporary) / "ours"))
        whole_s = workspace.timed(ours, "dvc", "repro")
        importing = importing_s(ours)
        count = len(YAML(typ="safe").load(ours / "dvc.yaml")["stages"])
        empty = workspace.init(empty_graph(Path(temporary) / "empty", count))
        workspace.timed(empty, "dvc", "repro")
        taken: dict[Path, list[float]] = {ours: [], empty: []}
        for _ in range(ROUNDS):
            for folder, seconds in taken.items():
                seconds.append(workspace.timed(folder, "dvc", "repro"))
    ours_s, empty_s = min(taken[ours]), min(taken[empty])
    return [
        {
            "what": "a whole run on digits from scratch, environments installed",
            "figure": f"{whole_s:.0f} s",
            "goal": "at most 120 s",
            "with": "`dvc repro`, including the real Triton",
        },
        {
            "what": "imports, summed over all its processes",
            "figure": f"{importing:.0f} s",
            "goal": "at most 30 s",
            "with": "by Python's own import profile",
        },
        {
            "what": f"`dvc repro` with nothing to do, relative to DVC alone on {count} empty stages",
            "figure": f"{ours_s / empty_s:.2f}",
            "goal": "at most 1.5",
            "with": f"{ours_s:.2f} s against {empty_s:.2f} s",
        },
    ]


def importing_s(folder: Path) -> float:
    """Seconds that all processes of a forced run spend importing, by PYTHONPROFILEIMPORTTIME."""
    environment = workspace.environment() | {"PYTHONPROFILEIMPORTTIME": "1"}
    command = ["dvc", "repro", "--force"]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    self_us = re.findall(r"^import time:\s+(\d+) \|", process.stderr, re.MULTILINE)
    return sum(map(int, self_us)) / 1e6


def empty_graph(folder: Path, count: int) -> Path:
    """A chain of stages that copy an empty file."""
    folder.mkdir()
    (folder / "0").touch()
    stages = {f"s{i}": {"cmd": f"cp {i} {i + 1}", "deps": [str(i)], "outs": [str(i + 1)]} for i in range(count)}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    return folder


if __name__ == "__main__":
    for result in main():
        print(json.dumps(result))
