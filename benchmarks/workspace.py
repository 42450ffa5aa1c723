"""Temporary copies of the project, to measure in."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from stages.settings import params

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MILLRACE_DATA", ROOT.parent / "shared" / "data"))
PARTS = ("stages", "serving", "flows", "champion", "dvc.yaml", "params.yaml", "requirements.lock")
PARTS += (".dvcignore", ".gitignore")


def project(folder: Path, changes: dict[str, Any] | None = None, preset: str = "") -> Path:
    """Copy the project to a new `folder`, and write a preset and then `changes` into its params.yaml."""
    for name in PARTS:
        source, place = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, place, ignore=_bytecode)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
    if preset:
        params.edit(params.preset(preset), folder / "params.yaml")
    params.edit(changes or {}, folder / "params.yaml")
    return folder


def _bytecode(folder: str, names: list[str]) -> list[str]:
    """The names of Python's caches. A release contains an empty file of that name, which must be copied."""
    return [name for name in names if name == "__pycache__" and (Path(folder) / name).is_dir()]


def timed(folder: Path, *command: str | Path) -> float:
    """Run a command in `folder` and return its wall-clock seconds; its output is shown only if it fails."""
    began = time.perf_counter()
    process = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} failed in {folder}:\n{process.stdout[-2000:]}{process.stderr[-2000:]}"
        )
    return time.perf_counter() - began


def watched(folder: Path, *command: str) -> tuple[float, float]:
    """Run a command and return its seconds and the peak MiB of resident memory, including its children."""
    import psutil

    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.2):
            try:
                family = [(parent := psutil.Process(process.pid)), *parent.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family) / 2**20)
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} failed with {code} in {folder}")
    return seconds, peak


def cpu_s() -> float:
    """CPU seconds of all child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment() -> dict[str, str]:
    """This process's environment, with this environment's commands first, the copy's code, and no analytics."""
    return os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": ".",
        "DVC_NO_ANALYTICS": "1",
        "MILLRACE_TRITON": os.environ.get("MILLRACE_TRITON", str(ROOT / ".venv-triton")),
    }


def stage(folder: Path, name: str) -> float:
    """Run one stage with `dvc repro`, without those upstream, and return its seconds."""
    return timed(folder, "dvc", "repro", "--quiet", "--force", "--single-item", name)


def init(folder: Path) -> Path:
    """Make it a git and DVC repository."""
    for command in ("git init -q", "dvc init -q", "dvc config core.analytics false"):
        timed(folder, *command.split())
    return folder
