"""Files that DVC holds: where altered bytes come from, and what brings the right ones back."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import UserError
from stages.core.lockfile import cache


def remedy(path: Path, restore: str) -> str:
    """What brings back an output or a tracked folder whose bytes are altered: `restore`, a sentence.

    Where the object in DVC's cache is damaged itself, `dvc checkout` would bring the same bytes again: then it is how
    to replace the object.
    """
    return replacing(objects, path) if (objects := damaged(path)) else restore


def replacing(objects: Sequence[Path], path: Path | str) -> str:
    """How to get rid of damaged objects of `path`, and have whole ones: a sentence."""
    listed = " ".join(map(str, objects[:3])) + (f" (and {len(objects) - 3} more)" if len(objects) > 3 else "")
    return (
        f"DVC's own copy is damaged: `rm -f {listed}`, then `dvc pull --force {path}` fetches it from a remote;"
        " where there is none, `dvc repro` makes the output of a stage again"
    )


def damaged(path: Path) -> list[Path]:
    """The objects of a file or folder in DVC's cache whose content is not what their name says; none if unknown."""
    path = Path(path).absolute()
    root = next((parent for parent in path.parents if (parent / ".dvc").is_dir()), None)
    if root is None:
        return []
    md5 = _tracked(root, path)
    with contextlib.suppress(UserError):
        return _damaged(cache(root) / "files" / "md5", md5) if md5 else []
    return []


def _damaged(objects: Path, md5: str) -> list[Path]:
    """Of an object and, where it lists files, of theirs."""
    listing = objects / md5[:2] / md5[2:]
    if not listing.exists():
        return []
    if not holds(listing, md5):
        return [listing]
    if not md5.endswith(".dir"):
        return []
    hashes = dict.fromkeys(entry["md5"] for entry in json.loads(listing.read_bytes()))
    listed = {objects / hash[:2] / hash[2:]: hash for hash in hashes}
    return [path for path, hash in listed.items() if path.exists() and not holds(path, hash)]


def holds(path: Path, md5: str) -> bool:
    """Whether an object's content has the MD5 that its name says."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5.removesuffix(".dir")


def _tracked(root: Path, path: Path) -> str:
    """MD5 of what DVC would check out at a path, from dvc.lock or the pointer beside it; nothing where it has none."""
    locked = _yaml(root / "dvc.lock").get("stages") or {}
    outs = [(root / out["path"], out) for stage in locked.values() for out in stage.get("outs", [])]
    pointer = path.with_name(f"{path.name}.dvc")
    outs += [(pointer.parent / out["path"], out) for out in _yaml(pointer).get("outs", [])]
    return next((str(out.get("md5", "")) for place, out in outs if place == path), "")


def _yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        return dict(YAML(typ="safe").load(path.read_bytes()) or {})
    except (OSError, ValueError, YAMLError):
        return {}
