"""The project that contains the current folder, and its paths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import Misuse, UserError

if TYPE_CHECKING:
    from serving.releases.store import Store


def enclosing() -> Path | None:
    """The project that contains the current folder, or None."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), None)


def project() -> Path:
    """The project's root, the folder of dvc.yaml.

    Raises:
        Misuse: neither the current folder nor one above it has a dvc.yaml, or params.yaml is missing.
    """
    from stages.core import lockfile

    root = enclosing()
    if root is None:
        raise Misuse(
            "project-not-found", f"{Path.cwd()} is not inside a millrace project: there is no dvc.yaml here or above"
        )
    if not (root / "params.yaml").exists():
        raise Misuse("params-missing", f"{root / 'params.yaml'} is missing: restore it with `git checkout params.yaml`")
    for restored in lockfile.recover(root):
        print(restored, file=sys.stderr)
    return root


def laid_out() -> dict[str, Path]:
    """The paths of dvc.yaml, by name."""
    from stages.settings import params

    root = project()
    return {name: root / path for name, path in params.paths(root / "dvc.yaml").items()}


def exported() -> dict[str, Path]:
    """The paths of dvc.yaml, by name, if a model has been exported.

    Raises:
        UserError: none has.
    """
    paths = laid_out()
    if not paths["manifest"].exists():
        raise UserError("model-not-exported", "there is no exported model yet: make one with `millrace run`")
    return paths


def opened() -> Store:
    """The store of this project's releases on this host."""
    from serving.releases.store import Store

    return Store(project() / "live")


def only(names: list[str]) -> str:
    """The only public name.

    Raises:
        Misuse: there are several, or none.
    """
    if not names:
        raise Misuse("release-none", "nothing is released yet: `millrace release` does that")
    if len(names) > 1:
        raise Misuse("option-model-missing", f"there are several models, {', '.join(names)}: choose one with --model")
    return names[0]
