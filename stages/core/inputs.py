"""What a stage reads, held from its start to its end: DVC records what stands there afterwards, whatever was used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from stages.core import closure, dvc_files, lockfile
from stages.core.closure import OURS, Closure
from stages.core.errors import Misuse, UserError
from stages.core.lockfile import LOCK

GRAPH, PARAMS = "dvc.yaml", "params.yaml"
NOTES = lockfile.TMP / "millrace" / "inputs"
CODE = ("stages", "serving", "flows", "requirements.lock")
MOST_HASHED = 64 << 20  # bytes of data that DVC has no record of
BEGINS_S = 600  # a process that is older took no time to begin: its clock is wrong
SHOWN = 3  # changes in a message
REMEDY = "nothing is recorded. Put it back and run again to keep the work, or run again with what stands there now"

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)

Identity = tuple[int, int, int]  # inode, size, mtime in ns

_current: Snapshot | None = None


@dataclass(frozen=True)
class Declared:
    """What dvc.yaml says of a stage, variables filled in. `params`: key -> value; `made`: the outputs of all stages."""

    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: dict[str, Any]
    made: frozenset[str] = field(compare=False)


class Changed(UserError):
    """What a stage read is not what stands there now."""


@dataclass(frozen=True)
class Snapshot:
    """What a stage was given at its start. `places`: dependency -> where it lies, elsewhere if a person says so.

    `files`: dependency -> file in it -> identity. `hashes`: the same with MD5s, of code and of what DVC has no MD5 of.
    Both hold the files of the `record` of its code as well.
    """

    stage: str
    declared: Declared
    places: dict[str, str]
    files: dict[str, dict[str, Identity]]
    hashes: dict[str, dict[str, str]]
    lock: bytes
    record: Closure | None

    def changes(self, data_only: bool = False) -> Iterator[str]:
        """What is otherwise now; a phrase each."""
        for dependency in self.files:
            if not (data_only and _is_code(dependency)):
                yield from self._changed_files(dependency)
        if data_only:
            return
        if self.record is not None:
            yield from closure.stale(self.record._replace(code={}, data={}), OURS)
        try:
            now = _declared(self.stage)
        except UNREADABLE as error:
            yield f"{GRAPH} or {PARAMS} can no longer be read ({' '.join(str(error).split())[:200]})"
            return
        values = self.declared.params
        unlike = [key for key in values if key in now.params and now.params[key] != values[key]]
        yield from (f"{key} in {PARAMS} was {_show(values[key])} and is {_show(now.params[key])} now" for key in unlike)
        if now != self.declared and not unlike:
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
            yield f"{path} " + ("changed" if name in before and name in now else "came" if name in now else "is gone")

    def _changed_lock(self) -> Iterator[str]:
        """Who made this stage's inputs, and the stage's own entry, as far as dvc.lock says."""
        if _bytes(LOCK) == self.lock:
            return
        now = lockfile.still()
        for stage in _names(self.lock) | _names(now):
            was, is_ = lockfile.entry(self.lock, stage), lockfile.entry(now, stage)
            if was != is_ and (stage == self.stage or _feeds(was, self.files) or _feeds(is_, self.files)):
                yield f"{LOCK} has another entry for {stage}"

    def note(self) -> None:
        """Leave for `verify` what this stage has used: DVC records it only after the stage has ended."""
        note = {
            "before": lockfile.entry(self.lock, self.stage),
            "params": self.declared.params,
            "hashes": self.hashes,
            "files": {dependency: _digest(files) for dependency, files in self.files.items()},
        }
        lockfile.replace(NOTES / f"{self.stage}.json", json.dumps(note, default=str).encode())


def take(stage: str, arguments: Sequence[str], began: float) -> Snapshot | None:
    """Look at all that a stage is given; None where no graph says what that is. `began`: when the process did.

    Raises:
        Changed: it changed since DVC read the graph, or while this process began.
    """
    global _current
    try:
        declared = _declared(stage)
    except UNREADABLE:
        return None  # the stage itself says what is wrong with them
    words = shlex.split(declared.cmd)[3:]
    if driven(stage) and words != list(arguments):
        raise Changed(f"the command of {stage} changed since DVC read {GRAPH} and {PARAMS}: run again")
    elsewhere = {path: place for path, place in zip(words, arguments, strict=False) if path != place}
    if not Path(__file__).is_relative_to(Path.cwd()):
        if driven(stage):
            raise Misuse(f"the code that runs lies in {OURS}, which DVC does not look at: unset PYTHONSAFEPATH")
        elsewhere |= {path: str(OURS / path) for path in declared.deps if _is_code(path)}
    record = _record(stage, declared, elsewhere)
    code = [*record.code, *record.data] if record else []
    if not Path(__file__).is_relative_to(Path.cwd()):
        elsewhere |= {path: str(OURS / path) for path in code}
    places = {path: elsewhere.get(path, path) for path in (*declared.deps, *code)}
    files = {path: _identities(place) for path, place in places.items()}
    _not_since(began, {places[path]: files[path] for path in files if _is_code(path)})
    hashes = {
        path: {name: _md5(Path(places[path], name)) for name in files[path]}
        for path in files
        if _is_code(path)
        or (_size(files[path]) <= MOST_HASHED and (path in elsewhere or not _is_known(path, declared)))
    }
    _current = Snapshot(stage, declared, places, files, hashes, _bytes(LOCK), record)
    return _current


def _record(stage: str, declared: Declared, elsewhere: Mapping[str, str]) -> Closure | None:
    """The record of the code that a stage runs; None where there is none, as for the stage that writes them.

    Raises:
        Changed: the code or a package is not what the record holds.
    """
    path = next((path for path in declared.deps if path.endswith(f"/code/{stage}.json")), "")
    place = Path(elsewhere.get(path, path))
    if not path or not place.is_file():
        return None
    record = closure.load(place)
    if found := list(closure.stale(record, OURS)):
        raise Changed(f"{shown(found)} since {path} was written: `dvc repro` brings it up to date first")
    return record


def shown(changes: Sequence[str]) -> str:
    """The first few of them."""
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return f"{'; '.join(changes[:SHOWN])}{more}"


def current() -> Snapshot | None:
    """What this process has looked at, if it is a stage."""
    return _current


def confirm(data_only: bool = False) -> None:
    """Hold what the stage was given against what stands there now; with `data_only`, its data alone.

    Raises:
        Changed: names what is otherwise.
    """
    if _current is None:
        return
    changes = list(_current.changes(data_only))
    if changes:
        raise Changed(f"{shown(changes)}, while {_current.stage} ran: {REMEDY}")


def driven(stage: str) -> bool:
    """Whether DVC runs this stage, here."""
    return os.environ.get("DVC_STAGE") == stage and Path(os.environ.get("DVC_ROOT", "/")) == Path.cwd()


def verify(root: Path = Path(), only: str = "*", beside: str = "", wait: bool = False) -> None:
    """Hold what DVC has recorded against what the stages noted that they used: `only` one, or all `beside` one.

    With `wait`, a DVC that is at work now is awaited; otherwise a later call does the rest.

    Raises:
        Changed: something changed between a stage's end and DVC's look at it. Its entry is withdrawn.
    """
    wrong = []
    for path in sorted((root / NOTES).glob(f"{only}.json")):
        with lockfile.idle(root, wait) as nobody_writes:
            if path.stem == beside or not nobody_writes or not path.exists():
                continue
            note, since = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
            lock = (root / LOCK).read_bytes()
            entry = _plain(lockfile.entry(lock, path.stem))
            if entry is None or entry == note["before"]:
                continue  # not recorded
            changes = list(_unlike(root, note, entry, lock))
            if changes and lockfile.cached_runs(root, path.stem, since):
                lockfile.withdraw(root, path.stem, since)
                wrong.append(f"{'; '.join(changes[:SHOWN])}, as {path.stem} ended")
            path.unlink()
    if wrong:
        raise Changed(f"{'; '.join(wrong)}: what DVC recorded of that is withdrawn. Run again")


def forget(stage: str) -> None:
    """Drop what an earlier run of a stage has noted: if this one fails, dvc.lock's entry is none of that run's."""
    (NOTES / f"{stage}.json").unlink(missing_ok=True)


def recorded(dependency: str, lock: bytes, root: Path = Path()) -> dict[str, str]:
    """File of a dependency -> its MD5, as DVC has recorded it where it was made or added."""
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


def _unlike(root: Path, note: Mapping[str, Any], entry: Mapping[str, Any], lock: bytes) -> Iterator[str]:
    """Where DVC has recorded something else than a stage noted; a phrase each."""
    values = entry.get("params", {}).get(PARAMS, {})
    for key, value in note["params"].items():
        if key in values and values[key] != value:
            yield f"{key} in {PARAMS} was {_show(value)} and became {_show(values[key])}"
    for path, md5 in ((one["path"], one.get("md5")) for one in entry.get("deps", [])):
        if path not in note["files"] or note["files"][path] == _digest(_identities(root / path)):
            continue  # still the file that was used, which DVC has hashed since
        hashes = note["hashes"].get(path) or recorded(path, lock, root)
        if md5 != (hashes.get("") or dvc_files.folder_md5(hashes)):
            yield f"{path} changed"


def _declared(stage: str) -> Declared:
    """What stands in dvc.yaml and params.yaml now.

    Raises:
        UNREADABLE: they cannot be read, or have no such stage.
    """
    from ruamel.yaml import YAML, YAMLError

    try:
        graph, params = (YAML(typ="safe").load(Path(name).read_text(encoding="utf-8")) for name in (GRAPH, PARAMS))
    except YAMLError as error:
        raise ValueError(str(error)) from error
    variables = params | {
        name: value for one in graph.get("vars", []) if isinstance(one, dict) for name, value in one.items()
    }

    def filled(text: str) -> str:
        return re.sub(r"\$\{([\w.]+)\}", lambda name: str(_value(variables, name[1])), text)

    own = graph["stages"][stage]
    outs = {name: [filled(_path(out)) for out in one.get("outs", [])] for name, one in graph["stages"].items()}
    return Declared(
        filled(own["cmd"]),
        tuple(filled(_path(one)) for one in own.get("deps", [])),
        tuple(outs[stage]),
        {key: _value(params, key) for key in own.get("params", [])},
        frozenset(path for paths in outs.values() for path in paths),
    )


def _path(one: Any) -> str:
    """Of a dependency or an output, which may have options."""
    return one if isinstance(one, str) else str(next(iter(one)))


def _value(tree: Any, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    try:
        return reduce(getitem, key.split("."), tree)
    except (LookupError, TypeError):
        return None


def _identities(place: str | Path) -> dict[str, Identity]:
    """File below a place ("" where it is one itself) -> its identity. What .dvcignore leaves out is left out here."""
    found: dict[str, Identity] = {}
    folders = [str(place)]
    try:
        if not os.path.isdir(place):
            return {"": _identity(os.stat(place))}
        while folders:
            for one in os.scandir(folders.pop()):
                if one.is_dir():
                    folders += [one.path] if one.name != "__pycache__" else []
                elif not one.name.endswith(".pyc"):
                    found[os.path.relpath(one.path, place)] = _identity(one.stat())
    except FileNotFoundError:
        pass  # what is missing at the end as well has not changed
    return found


def _identity(stat: os.stat_result) -> Identity:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _digest(files: Mapping[str, Identity]) -> str:
    return hashlib.md5(json.dumps(sorted(files.items())).encode()).hexdigest()


def _not_since(began: float, code: Mapping[str, Mapping[str, Identity]]) -> None:
    """Raise where code changed since this process began: nobody knows which of the two it has loaded."""
    for place in (Path(path, name) for path, files in code.items() for name in files):
        with contextlib.suppress(FileNotFoundError):
            if place.stat().st_ctime > began:
                raise Changed(f"{place} changed as the stage began: run again")


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except FileNotFoundError:
        return ""


def _is_code(dependency: str) -> bool:
    return dependency.partition("/")[0] in CODE


def _is_known(dependency: str, declared: Declared) -> bool:
    """Whether DVC has a record of what lies there: a stage makes it, or it was added."""
    around = [dependency, *map(str, Path(dependency).parents)]
    return not declared.made.isdisjoint(around) or any(Path(f"{path}.dvc").is_file() for path in around)


def _size(files: Mapping[str, Identity]) -> int:
    return sum(size for _, size, _ in files.values())


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes() if Path(path).exists() else b""


def _names(lock: bytes) -> set[str]:
    return set(re.findall(r"^  (\S+):$", lock.decode(errors="replace"), re.MULTILINE))


def _feeds(entry: Any, dependencies: Mapping[str, Any]) -> bool:
    """Whether a stage of this entry makes one of these, or something in them or around them."""
    outs = [out["path"] for out in (entry or {}).get("outs", [])]
    return any(_within(one, two) or _within(two, one) for one in outs for two in dependencies)


def _within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    return json.loads(json.dumps(value, default=str))


def _show(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def started() -> float:
    """When this process began, in seconds since the epoch and rounded up; now, where the system does not say."""
    now = time.time()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) + 1
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return now
    return now - age if 0 <= age < BEGINS_S else now
