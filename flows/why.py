"""Why a stage would run again, or has: which file, package, parameter or data is not what it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core import closure, dvc_files, lockfile
from stages.core.errors import Misuse
from stages.core.words import nearest
from stages.settings import choices, params


def would_run(stage: str, root: Path) -> list[str]:
    """What is otherwise now than when dvc.lock's entry of a stage was recorded; a phrase each.

    Raises:
        Misuse: there is no such stage.
    """
    if stage not in params.stages():
        raise Misuse(f"there is no stage {stage!r}{nearest(stage, params.stages())}")
    entry = lockfile.stages(root).get(stage)
    if entry is None:
        return [f"{stage} has never run"]
    now = closure.closure(f"stages/{stage}.py", choices.modules(params.load("code")))
    record = recorded(entry, root)
    code = [f"{_record(entry)} is not in DVC's cache"] if record is None else list(closure.differences(record, now))
    return [*code, *_reported(stage)]


def has_run(stage: str, root: Path) -> list[str]:
    """What is otherwise in dvc.lock's entry of a stage than in the last commit's; a phrase each."""
    shown = subprocess.run(["git", "show", f"HEAD:./{lockfile.LOCK}"], cwd=root, capture_output=True, check=False)
    before = lockfile.parse(shown.stdout).get(stage) if shown.returncode == 0 else None
    entry = lockfile.stages(root).get(stage)
    if before is None or entry is None or before == entry:
        return []
    was, is_ = recorded(before, root), recorded(entry, root)
    code = [] if was is None or is_ is None else list(closure.differences(was, is_))
    return [*code, *_values(before, entry), *_data(before, entry)]


def recorded(entry: Mapping[str, Any], root: Path) -> closure.Closure | None:
    """The record of the code that an entry of dvc.lock was made with; None where DVC's cache has it no longer."""
    md5 = _paths(entry).get(_record(entry), "")
    path = dvc_files.object_path(dvc_files.cache(root), md5)
    return closure.load(path) if md5 and path.is_file() else None


def _record(entry: Mapping[str, Any]) -> str:
    return next((path for path in _paths(entry) if Path(path).parent.name == "code"), "")


def _paths(entry: Mapping[str, Any]) -> dict[str, str]:
    return {one["path"]: one.get("md5", "") for one in entry.get("deps", [])}


def _data(before: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    was, is_ = _paths(before), _paths(entry)
    for path in sorted(was.keys() | is_.keys()):
        if was.get(path) != is_.get(path) and path != _record(entry):
            yield f"{path} changed"


def _values(before: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    was, is_ = (one.get("params", {}).get("params.yaml", {}) for one in (before, entry))
    for key in sorted(was.keys() | is_.keys()):
        if was.get(key) != is_.get(key):
            yield f"{key} was {json.dumps(was.get(key))} and became {json.dumps(is_.get(key))}"


def _reported(stage: str) -> Iterator[str]:
    """What DVC itself finds of data and parameters."""
    command = [sys.executable, "-m", "dvc", "status", "--json", stage]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "{}")
    for changes in (one for one in found.get(stage, []) if isinstance(one, dict)):
        for paths in changes.values():
            for path, how in paths.items() if isinstance(paths, dict) else ():
                if isinstance(how, dict):
                    yield from (f"{key} in {path} is {word}" for key, word in how.items())
                elif Path(path).parent.name != "code":
                    yield f"{path} is {how}"
