"""Why a stage would run again, or has run: which file, package, parameter or data has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import closure, dvc_files, lockfile
from stages.core.errors import Misuse
from stages.core.words import nearest
from stages.settings import choices, params

PARAMS = "params.yaml"


def would_run(stage: str, root: Path) -> list[str]:
    """List what has changed since dvc.lock recorded a stage, a phrase for each change.

    Raises:
        Misuse: there is no such stage.
    """
    if stage not in params.stages():
        raise Misuse("option-unknown-stage", f"there is no stage {stage!r}{nearest(stage, params.stages())}")
    entry = lockfile.stages(root).get(stage)
    if entry is None:
        return [f"{stage} has never run"]
    return [*_code(stage, entry, root), *_status(stage, entry, root)]


def has_run(stage: str, root: Path) -> list[str]:
    """List how a stage's entry in dvc.lock differs from the last commit's, a phrase for each change."""
    shown = subprocess.run(["git", "show", f"HEAD:./{lockfile.LOCK}"], cwd=root, capture_output=True, check=False)
    before = lockfile.parse(shown.stdout).get(stage) if shown.returncode == 0 else None
    after = lockfile.stages(root).get(stage)
    if before is None or after is None or before == after:
        return []
    old, new = (recorded(stage, entry, root) for entry in (before, after))
    code = [] if old is None or new is None else closure.differences(old, new)
    return [*code, *_changed_params(before, after), *_changed_paths(stage, before, after)]


def recorded(stage: str, entry: Mapping[str, Any], root: Path) -> closure.Closure | None:
    """Load the record of code that an entry of dvc.lock depends on; None if DVC's cache does not have it."""
    md5 = _hashes(entry).get(_record(stage), "")
    path = dvc_files.object_path(dvc_files.cache(root), md5)
    return closure.load(path) if md5 and path.is_file() else None


def _record(stage: str) -> str:
    """The path of a stage's record of code, which the first stage writes."""
    return f"{params.paths()['code']}/{stage}.json"


def _code(stage: str, entry: Mapping[str, Any], root: Path) -> Iterator[str]:
    """Changes of the code since an entry was recorded. The first stage depends on folders of code, not on a record."""
    if _record(stage) not in _hashes(entry):
        return
    record = recorded(stage, entry, root)
    if record is None:
        yield f"its record of code, {_record(stage)}, is not in DVC's cache"
    else:
        yield from closure.differences(
            record, closure.closure(f"stages/{stage}.py", choices.modules(params.load("code", choices.Parameters)))
        )


def _status(stage: str, entry: Mapping[str, Any], root: Path) -> Iterator[str]:
    """Changes of data, parameters and the command, according to `dvc status`."""
    command = [sys.executable, "-m", "dvc", "status", "--json", stage]
    status = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    for change in json.loads(status.stdout or "{}").get(stage, []):
        if not isinstance(change, dict):
            yield str(change)  # such as "changed command"
            continue
        for paths in change.values():
            for path, state in paths.items():
                if path == PARAMS and isinstance(state, dict):
                    yield from (_changed_param(key, entry, root) for key in state)
                elif path != _record(stage):
                    yield f"{path} is {state}"


def _changed_param(key: str, entry: Mapping[str, Any], root: Path) -> str:
    tree = YAML(typ="safe").load((root / PARAMS).read_text(encoding="utf-8"))
    now = reduce(lambda value, part: value.get(part) if isinstance(value, dict) else None, key.split("."), tree)
    return f"{key} was {json.dumps(_values(entry).get(key))} and is now {json.dumps(now)}"


def _changed_params(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = _values(before), _values(after)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} was {json.dumps(old.get(key))} and became {json.dumps(new.get(key))}"


def _changed_paths(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = _hashes(before), _hashes(after)
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path) and path != _record(stage):
            yield f"{path} changed"
    if before.get("cmd") != after.get("cmd"):
        yield "its command changed"


def _hashes(entry: Mapping[str, Any]) -> dict[str, str]:
    """The MD5 of each dependency."""
    return {dependency["path"]: dependency.get("md5", "") for dependency in entry.get("deps", [])}


def _values(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each parameter."""
    return dict(entry.get("params", {}).get(PARAMS, {}))
