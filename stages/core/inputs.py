"""Detect changes of a stage's inputs while it runs: DVC records the inputs as they are after the stage has ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import closure, dvc_files, lockfile
from stages.core.closure import ROOT, Closure
from stages.core.declared import GRAPH, PARAMS, UNREADABLE, Declared, declared_stage
from stages.core.errors import Misuse, UserError
from stages.core.lockfile import LOCK

NOTES = lockfile.TMP / "millrace" / "inputs"
CODE = ("stages", "serving", "flows", "requirements.lock")
MOST_HASHED = 64 << 20  # bytes of data that DVC has no record of
BEGINS_S = 600  # a process cannot take longer to start: its clock is wrong
SHOWN = 3  # changes in a message
REMEDY = "nothing is recorded. Undo the change and run again to keep the work, or run again with the change"

Identity = tuple[int, int, int]  # inode, size, mtime in ns

_current: Snapshot | None = None


class Changed(UserError):
    """An input of a stage has changed since the stage read it."""


@dataclass(frozen=True)
class Snapshot:
    """The inputs of a stage at its start.

    `places`: dependency -> its path, which differs if the user runs the stage with other paths.
    `files`: dependency -> file in it -> identity.
    `hashes`: dependency -> file in it -> MD5, for code and for files whose MD5 DVC does not know.
    `record`: the stage's code, whose files are in `files` and `hashes` as well.
    """

    stage: str
    declared: Declared
    places: dict[str, str]
    files: dict[str, dict[str, Identity]]
    hashes: dict[str, dict[str, str]]
    lock: bytes
    record: Closure | None

    def changes(self, data_only: bool = False) -> Iterator[str]:
        """What has changed since, a phrase for each change."""
        for dependency in self.files:
            if not (data_only and _is_code(dependency)):
                yield from self._changed_files(dependency)
        if data_only:
            return
        if self.record is not None:
            yield from closure.stale(self.record._replace(code={}, data={}), ROOT)
        try:
            now = declared_stage(self.stage)
        except UNREADABLE as error:
            yield f"{GRAPH} or {PARAMS} can no longer be read ({' '.join(str(error).split())[:200]})"
            return
        values = self.declared.params
        changed = [key for key in values if key in now.params and now.params[key] != values[key]]
        yield from (
            f"{key} in {PARAMS} was {_show(values[key])} and is {_show(now.params[key])} now" for key in changed
        )
        if now != self.declared and not changed:
            yield f"{self.stage} in {GRAPH} changed"
        yield from self._changed_lock()

    def _changed_files(self, dependency: str) -> Iterator[str]:
        before, now = self.files[dependency], _identities(self.places[dependency])
        known: Mapping[str, str] | None = self.hashes.get(dependency)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) == now.get(name):
                continue
            path = Path(self.places[dependency], name)
            if name in before and name in now and before[name][1] == now[name][1]:
                known = known if known is not None else recorded(dependency, self.lock)
                if known.get(name) == _md5(path):
                    continue
            yield f"{path} {closure.change(name, before, now)}"

    def _changed_lock(self) -> Iterator[str]:
        """Changes of the entries in dvc.lock of this stage and of those that make its inputs."""
        if _bytes(LOCK) == self.lock:
            return
        now = lockfile.stable_content()
        for stage in _names(self.lock) | _names(now):
            was, is_ = lockfile.entry(self.lock, stage), lockfile.entry(now, stage)
            if was != is_ and (stage == self.stage or _makes_input(was, self.files) or _makes_input(is_, self.files)):
                yield f"{LOCK} has another entry for {stage}"

    def note(self) -> None:
        """Write down for `verify` what this stage used, because DVC records it only after the stage has ended."""
        note = {
            "before": lockfile.entry(self.lock, self.stage),
            "params": self.declared.params,
            "hashes": self.hashes,
            "files": {dependency: _digest(files) for dependency, files in self.files.items()},
        }
        lockfile.replace(NOTES / f"{self.stage}.json", json.dumps(note, default=str).encode())


def take_snapshot(stage: str, arguments: Sequence[str], given: Mapping[str, str], began: float) -> Snapshot | None:
    """Record the inputs of a stage; None without a dvc.yaml that declares them.

    `given`: path of dvc.yaml -> the path that was given instead of it. `began`: when this process started.

    Raises:
        Changed: an input changed since DVC read dvc.yaml, or while this process started.
    """
    global _current  # noqa: PLW0603  # a process runs one stage
    try:
        declared = declared_stage(stage)
    except UNREADABLE:
        return None  # the stage itself reports what is wrong with them
    words = shlex.split(declared.cmd)[3:]
    if run_by_dvc(stage) and words != list(arguments):
        raise Changed(
            "input-changed-before", f"the command of {stage} changed since DVC read {GRAPH} and {PARAMS}: run again"
        )
    elsewhere = dict(given)
    if not Path(__file__).is_relative_to(Path.cwd()):
        if run_by_dvc(stage):
            raise Misuse(
                "code-outside-project",
                f"the code that runs lies in {ROOT}, which DVC does not look at: unset PYTHONSAFEPATH",
            )
        elsewhere |= {path: str(ROOT / path) for path in declared.deps if _is_code(path)}
    record = _record(stage, declared, elsewhere)
    code = [*record.code, *record.data] if record else []
    if not Path(__file__).is_relative_to(Path.cwd()):
        elsewhere |= {path: str(ROOT / path) for path in code}
    places = {path: elsewhere.get(path, path) for path in (*declared.deps, *code)}
    files = {path: _identities(place) for path, place in places.items()}
    _check_not_newer(began, {places[path]: files[path] for path in files if _is_code(path)})
    hashes = {
        path: {name: _md5(Path(places[path], name)) for name in files[path]}
        for path in files
        if _is_code(path)
        or (_size(files[path]) <= MOST_HASHED and (path in elsewhere or not _is_known(path, declared)))
    }
    _current = Snapshot(stage, declared, places, files, hashes, _bytes(LOCK), record)
    return _current


def _record(stage: str, declared: Declared, elsewhere: Mapping[str, str]) -> Closure | None:
    """The record of the code that a stage runs; None without one, as for the stage `code`, which writes them.

    Raises:
        Changed: the code or a package differs from the record.
    """
    path = next((path for path in declared.deps if path.endswith(f"/code/{stage}.json")), "")
    place = Path(elsewhere.get(path, path))
    if not path or not place.is_file():
        return None
    record = closure.load(place)
    if found := list(closure.stale(record, ROOT)):
        raise Changed(
            "code-changed", f"{shown(found)} since {path} was written: `millrace run` brings it up to date first"
        )
    return record


def shown(changes: Sequence[str]) -> str:
    """The first few changes, and how many more there are."""
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return f"{'; '.join(changes[:SHOWN])}{more}"


def current() -> Snapshot | None:
    """The snapshot of this process, if it is a stage."""
    return _current


def confirm(data_only: bool = False) -> None:
    """Compare the stage's inputs with its snapshot; with `data_only`, the data only.

    Raises:
        Changed: some differ; the message names them.
    """
    if _current is None:
        return
    changes = list(_current.changes(data_only))
    if changes:
        raise Changed("input-changed-during", f"{shown(changes)}, while {_current.stage} ran: {REMEDY}")


def run_by_dvc(stage: str) -> bool:
    """Whether DVC runs this stage in the working directory."""
    return os.environ.get("DVC_STAGE") == stage and Path(os.environ.get("DVC_ROOT", "/")) == Path.cwd()


def verify(root: Path = Path(), only: str = "*", leave_out: str = "", wait: bool = False) -> None:
    """Compare what DVC recorded of the stages with what they noted that they used.

    Args:
        only: the stage to check; all by default.
        leave_out: a stage not to check.
        wait: whether to wait for a running DVC. Otherwise a later call does the rest.

    Raises:
        Changed: an input changed after a stage ended and before DVC recorded it. The stage's entry is withdrawn.
    """
    wrong = []
    for path in sorted((root / NOTES).glob(f"{only}.json")):
        with lockfile.idle(root, wait) as is_idle:
            if path.stem == leave_out or not is_idle or not path.exists():
                continue
            note, since = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
            lock = (root / LOCK).read_bytes()
            entry = _plain(lockfile.entry(lock, path.stem))
            if entry is None or entry == note["before"]:
                continue  # not recorded
            changes = list(_differences(root, note, entry, lock))
            if changes and lockfile.cached_runs(root, path.stem, since):
                lockfile.withdraw(root, path.stem, since)
                wrong.append(f"{'; '.join(changes[:SHOWN])}, as {path.stem} ended")
            path.unlink()
    if wrong:
        raise Changed("input-changed-after", f"{'; '.join(wrong)}: DVC's record of it is withdrawn. Run again")


def forget(stage: str) -> None:
    """Delete the note of a stage's earlier run: if this run fails, the note no longer belongs to dvc.lock's entry."""
    (NOTES / f"{stage}.json").unlink(missing_ok=True)


def recorded(dependency: str, lock: bytes, root: Path = Path()) -> dict[str, str]:
    """File of a dependency -> the MD5 that DVC recorded when it was made or added."""
    made: dict[str, str] = {}
    with contextlib.suppress(UserError):
        made = lockfile.outputs(lockfile.parse(lock))
    for path in (Path(dependency), *Path(dependency).parents):
        md5 = dvc_files.pointer_outs(root / path).get(root / path) or made.get(str(path), "")
        if md5.endswith(dvc_files.FOLDER):
            files = dvc_files.members(dvc_files.cache(root), md5)
            return dvc_files.below(files, Path(dependency).relative_to(path).as_posix())
        if md5:
            return {"": md5}
    return {}


def _differences(root: Path, note: Mapping[str, Any], entry: Mapping[str, Any], lock: bytes) -> Iterator[str]:
    """Where DVC's record differs from a stage's note, a phrase for each difference."""
    values = entry.get("params", {}).get(PARAMS, {})
    for key, value in note["params"].items():
        if key in values and values[key] != value:
            yield f"{key} in {PARAMS} was {_show(value)} and became {_show(values[key])}"
    for path, md5 in ((dependency["path"], dependency.get("md5")) for dependency in entry.get("deps", [])):
        if path not in note["files"] or note["files"][path] == _digest(_identities(root / path)):
            continue  # unchanged since the stage used it
        hashes = note["hashes"].get(path) or recorded(path, lock, root)
        if md5 != (hashes.get("") or dvc_files.folder_md5(hashes)):
            yield f"{path} changed"


def _identities(place: str | Path) -> dict[str, Identity]:
    """Each file below a folder, or "" for a file itself -> its identity. Leaves out what .dvcignore does."""
    files: dict[str, Identity] = {}
    folders = [str(place)]
    try:
        if not os.path.isdir(place):
            return {"": _identity(os.stat(place))}
        while folders:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir():
                    folders += [entry.path] if entry.name != "__pycache__" else []
                elif not entry.name.endswith(".pyc"):
                    files[os.path.relpath(entry.path, place)] = _identity(entry.stat())
    except FileNotFoundError:
        pass  # a file that is missing at the end as well has not changed
    return files


def _identity(stat: os.stat_result) -> Identity:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _digest(files: Mapping[str, Identity]) -> str:
    return hashlib.md5(json.dumps(sorted(files.items())).encode()).hexdigest()


def _check_not_newer(began: float, code: Mapping[str, Mapping[str, Identity]]) -> None:
    """Raise Changed if code changed since this process started: it may have loaded either version."""
    for place in (Path(path, name) for path, files in code.items() for name in files):
        with contextlib.suppress(FileNotFoundError):
            if place.stat().st_ctime > began:
                raise Changed("input-changed-before", f"{place} changed as the stage started: run again")


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except FileNotFoundError:
        return ""


def _is_code(dependency: str) -> bool:
    return dependency.partition("/")[0] in CODE


def _is_known(dependency: str, declared: Declared) -> bool:
    """Whether DVC has a record of a dependency, because a stage makes it or it was added."""
    around = [dependency, *map(str, Path(dependency).parents)]
    return not declared.made.isdisjoint(around) or any(Path(f"{path}.dvc").is_file() for path in around)


def _size(files: Mapping[str, Identity]) -> int:
    return sum(size for _, size, _ in files.values())


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes() if Path(path).exists() else b""


def _names(lock: bytes) -> set[str]:
    return set(re.findall(r"^  (\S+):$", lock.decode(errors="replace"), re.MULTILINE))


def _makes_input(entry: Any, dependencies: Mapping[str, Any]) -> bool:
    """Whether the stage of this entry makes one of these dependencies, a part of one, or a folder around one."""
    outs = [out["path"] for out in (entry or {}).get("outs", [])]
    return any(_within(out, dependency) or _within(dependency, out) for out in outs for dependency in dependencies)


def _within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def _plain(value: Any) -> Any:
    """A value after a round trip through JSON."""
    return json.loads(json.dumps(value, default=str))


def _show(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def started() -> float:
    """When this process started, in seconds since the epoch, rounded up; now if the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) + 1
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.time()
    now = time.time()  # last, so that a pause between the two clocks makes the process no older than it is
    return now - age if 0 <= age < BEGINS_S else now
