"""What DVC keeps of files: objects in its cache by their MD5, listings of folders, pointers, and its run cache.

No other module knows their layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import UserError

FOLDER = ".dir"  # ends the MD5 of a folder, whose object lists its files
_OBJECT = re.compile(rb"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


def cache(root: Path) -> Path:
    """DVC's cache folder.

    Raises:
        UserError: DVC fails to name it.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("dvc-failed", f"`dvc cache dir` failed: {done.stderr.strip()}")
    return root / done.stdout.strip()


def object_path(cache: Path, md5: str) -> Path:
    """Where the cache keeps the bytes with this MD5."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def is_object(path: bytes) -> bool:
    """Whether a path has the form of an object's in a cache."""
    return bool(_OBJECT.search(path))


def is_intact(path: Path, md5: str) -> bool:
    """Whether an object is there with the content that its MD5 says."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5.removesuffix(FOLDER)


def members(cache: Path, md5: str) -> dict[str, str]:
    """Path -> MD5 of each file in the folder with this MD5, {} if the cache lacks it; of a file, itself as ""."""
    if not md5.endswith(FOLDER):
        return {"": md5}
    listing = object_path(cache, md5)
    entries = json.loads(listing.read_bytes()) if listing.exists() else []
    return {entry["relpath"]: entry["md5"] for entry in entries}


def below(files: Mapping[str, str], path: str) -> dict[str, str]:
    """Those of a folder's files that lie below a path, by their paths from there; a file itself as ""."""
    if path in files:
        return {"": files[path]}
    prefix = "" if path == "." else f"{path}/"
    return {name.removeprefix(prefix): md5 for name, md5 in files.items() if name.startswith(prefix)}


def folder_md5(files: Mapping[str, str]) -> str:
    """DVC's MD5 of a folder with these files, path -> MD5."""
    listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())])
    return f"{hashlib.md5(listing.encode()).hexdigest()}{FOLDER}"


def pointer_outs(path: Path) -> dict[Path, str]:
    """Path -> MD5 of what the pointer beside a file or folder, `NAME.dvc`, tracks; {} without a pointer."""
    pointer = path.with_name(f"{path.name}.dvc")
    return {pointer.parent / out["path"]: str(out.get("md5", "")) for out in _yaml(pointer).get("outs", [])}


def recorded_runs(cache: Path, since: float) -> Iterator[tuple[Path, Any]]:
    """The files of the run cache written `since` a time, each with the entry of dvc.lock that it holds."""
    from ruamel.yaml import YAML

    for path in (cache / "runs").glob("*/*/*"):
        if path.stat().st_mtime >= since:
            yield path, YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def remove_run(path: Path) -> None:
    """Delete a file of the run cache, and its folder if it was the last: DVC fails on an empty one."""
    path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def remedy(path: Path, restore: str) -> str:
    """How to restore an output or a tracked folder whose bytes are altered: `restore`, a sentence.

    If the object in DVC's cache is damaged as well, `dvc checkout` would bring the same bytes again: then the sentence
    says how to replace the object.
    """
    return replacement_advice(objects, path) if (objects := damaged(path)) else restore


def replacement_advice(objects: Sequence[Path], path: Path | str) -> str:
    """How to replace damaged objects of `path`: a sentence."""
    listed = " ".join(map(str, objects[:3])) + (f" (and {len(objects) - 3} more)" if len(objects) > 3 else "")
    return (
        f"DVC's own copy is damaged: `rm -f {listed}`, then `dvc pull --force {path}` fetches it from a remote;"
        " without a remote, `millrace run` makes the output of a stage again"
    )


def damaged(path: Path) -> list[Path]:
    """The damaged objects of a file or folder in DVC's cache; [] if DVC does not track it or its cache is unknown."""
    path = Path(path).absolute()
    root = next((parent for parent in path.parents if (parent / ".dvc").is_dir()), None)
    if root is None:
        return []
    md5 = _tracked(root, path)
    with contextlib.suppress(UserError):
        return _damaged(cache(root), md5) if md5 else []
    return []


def _damaged(cache: Path, md5: str) -> list[Path]:
    """An object if it is damaged; of a folder's intact listing, the damaged objects that it lists."""
    path = object_path(cache, md5)
    if not path.exists():
        return []
    if not is_intact(path, md5):
        return [path]
    if not md5.endswith(FOLDER):
        return []
    listed = {object_path(cache, hash): hash for hash in members(cache, md5).values()}
    return [path for path, hash in listed.items() if path.exists() and not is_intact(path, hash)]


def _tracked(root: Path, path: Path) -> str:
    """The MD5 that DVC has recorded of a path, in dvc.lock or the pointer beside it; "" if it has none."""
    locked = _yaml(root / "dvc.lock").get("stages") or {}
    outs = [(root / out["path"], str(out.get("md5", ""))) for stage in locked.values() for out in stage.get("outs", [])]
    outs += pointer_outs(path).items()
    return next((md5 for place, md5 in outs if place == path), "")


def _yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return dict(YAML(typ="safe").load(path.read_bytes()) or {})
    except (OSError, ValueError, YAMLError):
        return {}
