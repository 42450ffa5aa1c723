"""The champion: the live release in git and DVC, so that any clone can serve or challenge it."""

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
from stages.core.children import child_environment
from stages.core.errors import UserError
from stages.core.files import replacing
from stages.core.lockfile import TMP

POINTER = "repository.dvc"


def set_champion(folder: Path, store: Store, names: Names) -> None:
    """Make a release the champion: its manifest and record go to git, its model files to DVC."""
    record = store.record(names.release)
    with replacing(folder / "repository") as repository:
        repository.mkdir()
        for part in parts(names):
            shutil.copytree(store.repository / part, repository / part)
        shutil.copytree(record / "public", repository / names.public)
    for name in (*RECORD, "manifest.json"):
        with replacing(folder / name) as path:
            path.write_bytes((record / name).read_bytes() if name != LATER or (record / name).exists() else b"{}\n")
    _add_to_dvc(folder)


def _add_to_dvc(folder: Path) -> None:
    """Put the repository under DVC without reading the project's graph, which may be in conflict after a merge.

    `dvc add` reads the whole project that it runs in. So it runs in a temporary project with the same cache.
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
        with replacing(folder / POINTER) as path:
            shutil.copyfile(alone / POINTER, path)
    with replacing(folder / ".gitignore") as path:
        path.write_text("/repository\n", encoding="utf-8")


def judge_again(root: Path) -> None:
    """Run the stages that depend on the champion, so that the next run has nothing to do."""
    _dvc(root, "repro", "--quiet", "--single-item", "challenge", "measure", "gate")


def catch_up(root: Path, store: Store) -> None:
    """Commit the champion of a command that was killed before its commit."""
    try:
        manifest = manifests.load(root / "champion" / "manifest.json")
    except UserError:  # there is no champion yet
        return
    if store.current(manifest.name) == manifest.id:
        commit(root, root / "champion", f"Release {manifest.id} is live")


def commit(root: Path, folder: Path, message: str, also: Sequence[str] = ()) -> str:
    """Commit the champion and the files in `also`, where they have changed.

    Returns:
        The reason why git could not commit them, else "".
    """
    tracked = [f"{folder.name}/{name}" for name in ("manifest.json", *RECORD, POINTER, ".gitignore")]
    paths = [path for path in (*tracked, *also) if (root / path).exists()]
    result = _run(root, "git", "add", "--", *paths)
    if result.returncode == 0:
        if _run(root, "git", "diff", "--cached", "--quiet", "--", *paths).returncode == 0:
            return ""
        result = _run(root, "git", "commit", "--quiet", "--message", message, "--", *paths)
    return refusal(result.stderr.strip()) if result.returncode else ""


def _dvc(root: Path, *arguments: str) -> None:
    """Run DVC.

    Raises:
        UserError: it failed.
    """
    result = _run(root, sys.executable, "-m", "dvc", *arguments)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise UserError(
            "dvc-failed", f"`dvc {' '.join(arguments)}` failed: {lines[-1] if lines else result.returncode}"
        )


def _run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=root, env=child_environment(), text=True, capture_output=True, check=False)
