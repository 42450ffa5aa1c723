"""`dvc.lock`, DVC's record of each stage: read it, back it up, and restore it after a kill has cut it short."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import dvc_files
from stages.core.errors import Misuse, UserError

LOCK = "dvc.lock"
TMP = Path(".dvc/tmp")  # DVC's own, ignored by git
COPY = TMP / "millrace" / LOCK
STILL, STILL_S = 100, 0.05  # how often to look at a dvc.lock that is being written, and seconds between two looks
CONFLICT = re.compile(rb"^<{7} ", re.MULTILINE)
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


def stages(root: Path = Path()) -> dict[str, Any]:
    """The entries of dvc.lock by stage, in the order in which the stages ran; {} without a dvc.lock.

    Raises:
        UserError: it has merge conflicts or cannot be read.
    """
    path = root / LOCK
    return parse(path.read_bytes()) if path.exists() else {}


def parse(content: bytes) -> dict[str, Any]:
    """The entries of a dvc.lock with these bytes.

    Raises:
        UserError: it has merge conflicts or is incomplete.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if CONFLICT.search(content):
        raise UserError("git-conflict", conflict(LOCK))
    try:
        tree = YAML(typ="safe").load(content.decode())
        if not isinstance(tree, dict) or not content.endswith(b"\n") or not isinstance(tree.get("stages", {}), dict):
            raise ValueError("cut short")
        stages: dict[str, Any] = tree.get("stages", {})
        for stage in stages.values():
            _check(stage)
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            "dvc-lock-incomplete", f"{LOCK} is incomplete: `git checkout {LOCK}` restores the last commit's"
        ) from error
    return stages


def conflict(path: str) -> str:
    """How to resolve the merge conflicts of a file."""
    if path == LOCK:
        return f"{path} is in conflict, from a merge: `git checkout --ours {path}`, `millrace run` and `git add {path}`"
    return f"{path} is in conflict, from a merge: edit the lines between <<<<<<< and >>>>>>>, then `git add {path}`"


def check_conflicts(root: Path = Path()) -> None:
    """Check dvc.yaml, params.yaml and dvc.lock for merge conflicts.

    Raises:
        Misuse: some have conflicts; a line for each file.
    """
    if messages := conflicts(root):
        raise Misuse("git-conflict", "\nerror: ".join(messages))


def conflicts(root: Path = Path()) -> list[str]:
    """How to resolve the merge conflicts of dvc.yaml, params.yaml and dvc.lock, a sentence for each file with some."""
    return [conflict(name) for name in ("dvc.yaml", "params.yaml", LOCK) if CONFLICT.search(_read(root / name) or b"")]


def keep(root: Path = Path()) -> None:
    """Back up dvc.lock, if it is complete and nobody is writing it."""
    with idle(root) as is_idle, contextlib.suppress(OSError, UserError):
        if is_idle and (content := (root / LOCK).read_bytes()) != _read(root / COPY):
            parse(content)
            replace(root / COPY, content)


def recover(root: Path) -> list[str]:
    """Repair what a killed DVC has left half written; return a line for each repair."""
    if not (root / TMP).is_dir():
        return []  # no DVC has worked here yet
    with idle(root) as is_idle, contextlib.suppress(OSError):
        return [*_recover_lock(root), *_recover_rwlock(root)] if is_idle else []
    return []


@contextlib.contextmanager
def idle(root: Path = Path(), wait: bool = False) -> Iterator[bool]:
    """Hold DVC's own lock, as DVC does to read or write these files. Yields False if another process holds it."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((root / TMP / "lock").open("a+"))
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except FileNotFoundError:
            yield True  # no DVC has worked here yet
            return
        except OSError:
            yield False
            return
        yield True


def stable_content(root: Path = Path()) -> bytes:
    """The bytes of dvc.lock, once nobody is writing it."""
    content = _read(root / LOCK) or b""
    for _ in range(STILL):
        time.sleep(STILL_S)
        before, content = content, _read(root / LOCK) or b""
        if content == before and _whole(content):
            break
    return content


def withdraw(root: Path, stage: str, since: float) -> None:
    """Delete a stage's wrong entry from dvc.lock, and its runs written `since` a time from DVC's run cache."""
    cached = cached_runs(root, stage, since)
    text = (root / LOCK).read_text(encoding="utf-8")
    rest = _block(stage).sub("", text, count=1)
    replace(root / LOCK, rest.removesuffix("stages:\n").encode())  # DVC takes no key without a value
    for path in cached:
        dvc_files.remove_run(path)


def cached_runs(root: Path, stage: str, since: float) -> list[Path]:
    """The files in DVC's run cache that hold dvc.lock's entry of a stage and were written `since` a time.

    DVC writes such a file with every run that it records; there is none for an entry that git or a user has restored.
    """
    recorded = entry((root / LOCK).read_bytes(), stage)
    return [path for path, run in dvc_files.recorded_runs(dvc_files.cache(root), since) if run == recorded]


def move_last(names: Sequence[str], root: Path = Path()) -> None:
    """Move the entries of these stages to the end, in this order."""
    text = (root / LOCK).read_text(encoding="utf-8")
    blocks = [match[0] for name in names if (match := _block(name).search(text))]
    for block in blocks:
        text = text.replace(block, "", 1)
    if blocks:
        replace(root / LOCK, (text + "".join(blocks)).encode())


def entry(content: bytes, stage: str) -> Any:
    """The entry of one stage in a dvc.lock with these bytes, without parsing the others; None if it has none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    match = _block(stage).search(content.decode(errors="replace"))
    with contextlib.suppress(YAMLError):
        return YAML(typ="safe").load(match[0])[stage] if match else None
    return None


def outputs(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Path -> MD5 of every output of the stages in a dvc.lock."""
    return {out["path"]: out["md5"] for stage in recorded.values() for out in stage.get("outs", []) if "md5" in out}


def replace(path: Path, content: bytes) -> None:
    """Replace a file's content at once, by a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _check(stage: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError if an entry of dvc.lock is cut short."""
    for file in [*stage.get("deps", []), *stage.get("outs", [])]:
        md5 = file["path"] and file[file.get("hash", "md5")]
        if file.get("hash") == "md5" and not (MD5.fullmatch(md5) and "size" in file):
            raise ValueError("cut short")
        if str(md5).endswith(".dir") and "nfiles" not in file:
            raise ValueError("cut short")
    if not stage["cmd"] or stage.keys() == {"cmd"}:
        raise ValueError("cut short")


def _recover_lock(root: Path) -> list[str]:
    content, copy = _read(root / LOCK), _read(root / COPY)
    if content is None or content == copy or CONFLICT.search(content):
        return []
    committed = _git(root, "show", f"HEAD:./{LOCK}")
    if _whole(content) and (content == committed or not (copy or b"").startswith(content)):
        replace(root / COPY, content)
        return []
    when = _git(root, "log", "-1", "--format=%ct", "--", LOCK).strip()
    newer = copy is None or (when.isdigit() and int(when) > (root / COPY).stat().st_mtime)
    copies = {"the copy from before": copy, "the last commit's": committed}
    message = f"{LOCK} was cut to {len(content):,} bytes, as by a kill"
    for name in reversed(copies) if newer else copies:
        if (whole := copies[name]) and _whole(whole):
            replace(root / LOCK, whole)
            return [f"{message}: {name} is put back; DVC's run cache has what was made since"]
    os.replace(root / LOCK, root / COPY.with_suffix(".cut"))
    return [f"{message}, and there is no copy of it: DVC's run cache has what was made"]


def _recover_rwlock(root: Path) -> list[str]:
    path = root / TMP / "rwlock"
    content = _read(path)
    if content is None:
        return []
    with contextlib.suppress(ValueError):
        if isinstance(json.loads(content), dict):
            return []
    if _dvc_lives(root):
        return []
    path.unlink(missing_ok=True)
    return [
        f"{path.relative_to(root)} had been cut to {len(content)} bytes, as by a kill: removed, as no DVC runs here"
    ]


def _dvc_lives(root: Path) -> bool:
    """Whether a DVC process runs in this folder."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            names = {Path(word).name for word in process.cmdline()[:4]}
            if "dvc" in names and Path(process.cwd()) == root.resolve():
                return True
    return False


def _whole(content: bytes) -> bool:
    try:
        return bool(parse(content) or content.strip())
    except UserError:
        return False


def _block(stage: str) -> re.Pattern[str]:
    """The pattern of a stage's entry in the text that DVC writes."""
    return re.compile(rf"^  {re.escape(stage)}:\n(?:   .*\n)*", re.MULTILINE)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _git(root: Path, *arguments: str) -> bytes:
    with contextlib.suppress(OSError):
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False).stdout
    return b""
