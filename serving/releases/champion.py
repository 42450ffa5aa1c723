"""The released model as git and DVC know it, so that any clone can serve or challenge it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from serving.releases.git_history import cache, refusal
from serving.releases.store import LATER, RECORD, Store, parts
from serving.triton import manifest as manifests
from serving.triton.names import Names
from stages.core.children import surroundings
from stages.core.command import replacing
from stages.core.errors import UserError
from stages.core.lockfile import TMP

POINTER = "repository.dvc"


def crown(folder: Path, store: Store, names: Names) -> None:
    """Make a release the champion: its manifest and verdict for git, its bytes for DVC."""
    record = store.record(names.release)
    with replacing(folder / "repository") as whole:
        whole.mkdir()
        for part in parts(names):
            shutil.copytree(store.repository / part, whole / part)
        shutil.copytree(record / "public", whole / names.public)
    for name in (*RECORD, "manifest.json"):
        with replacing(folder / name) as content:
            content.write_bytes((record / name).read_bytes() if name != LATER or (record / name).exists() else b"{}\n")
    _point(folder)


def _point(folder: Path) -> None:
    """Put the repository under DVC, without its graph: a rollback must work where a merge has left that in conflict.

    A DVC project of its own, with the same cache, adds the files: `dvc add` reads all of the project that it works in.
    """
    root = folder.parent
    (root / TMP).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / TMP, prefix="add-") as temporary:
        alone = Path(temporary)
        (alone / ".dvc").mkdir()
        config = f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {cache(root)}\n"
        (alone / ".dvc" / "config").write_text(config, encoding="utf-8")
        shutil.copytree(folder / "repository", alone / "repository")
        _dvc(alone, "add", "--quiet", "repository")
        with replacing(folder / POINTER) as whole:
            shutil.copyfile(alone / POINTER, whole)
    with replacing(folder / ".gitignore") as whole:
        whole.write_text("/repository\n", encoding="utf-8")


def judge_again(root: Path) -> None:
    """Let the graph see the new champion, so that the next run finds nothing to do."""
    _dvc(root, "repro", "--quiet", "--single-item", "challenge", "measure", "gate")


def catch_up(root: Path, store: Store) -> None:
    """Commit the champion that a killed command has set, so that git says what is live."""
    try:
        made = manifests.load(root / "champion" / "manifest.json")
    except UserError:  # there is none yet
        return
    if store.current(made.name) == made.id:
        commit(root, root / "champion", f"Release {made.id} is live")


def commit(root: Path, folder: Path, message: str, also: Sequence[str] = ()) -> str:
    """Commit the champion and more files, if git has others; why it could not be, or nothing."""
    tracked = [f"{folder.name}/{name}" for name in ("manifest.json", *RECORD, POINTER, ".gitignore")]
    paths = [path for path in (*tracked, *also) if (root / path).exists()]
    added = _run(root, "git", "add", "--", *paths)
    if added.returncode == 0 and _run(root, "git", "diff", "--cached", "--quiet", "--", *paths).returncode == 0:
        return ""
    done = _run(root, "git", "commit", "--quiet", "--message", message, "--", *paths) if not added.returncode else added
    return refusal(done.stderr.strip()) if done.returncode else ""


def _dvc(root: Path, *arguments: str) -> None:
    _checked(_run(root, sys.executable, "-m", "dvc", *arguments))


def _run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=root, env=surroundings(), text=True, capture_output=True)


def _checked(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"`dvc {' '.join(done.args[3:])}` failed: {said[-1] if said else done.returncode}")
