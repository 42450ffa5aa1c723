"""Runs that are killed at random moments: the run that may end leaves the outputs of an uninterrupted one."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from benchmarks import workspace

SEEDS, KILLS = 10, 10
SHORTEST_S, LONGEST_S = 0.5, 8.0
PATIENCE_S = 60.0  # for the processes of a killed run to end
RUN = (sys.executable, "-m", "flows.cli", "run")


def main() -> list[dict[str, Any]]:
    """Compare the outputs of killed runs with those of an uninterrupted one."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = workspace.init(workspace.project(Path(temporary) / "whole"))
        workspace.timed(whole, *RUN)
        equal = 0
        for seed in range(SEEDS):
            folder = workspace.init(workspace.project(Path(temporary) / f"killed-{seed}"))
            kill_runs(folder, random.Random(seed))
            workspace.timed(folder, *RUN)
            equal += hashes(folder) == hashes(whole)
    return [
        {
            "what": "runs that end with the outputs of an uninterrupted one",
            "figure": f"{equal} of {SEEDS}",
            "goal": "all",
            "with": f"each killed {KILLS} times at random moments",
        }
    ]


def kill_runs(folder: Path, chance: random.Random) -> None:
    """Start a run and kill it, several times."""
    for _ in range(KILLS):
        run = subprocess.Popen(RUN, cwd=folder, env=workspace.environment(), stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(timeout=chance.uniform(SHORTEST_S, LONGEST_S))
        run.kill()
        run.wait()
        deadline = time.monotonic() + PATIENCE_S
        while works_in(folder):
            if time.monotonic() > deadline:
                raise SystemExit(f"a killed run has left processes in {folder}")
            time.sleep(0.05)


def works_in(folder: Path) -> bool:
    """Whether any process has this working directory."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd() == str(folder.resolve()):
                return True
    return False


def hashes(folder: Path) -> dict[str, str]:
    """The hash of every output in dvc.lock, except for the times."""
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for name, stage in stages.items() if name != "measure" for out in stage["outs"]}
