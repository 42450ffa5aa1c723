"""The project that the current folder lies in: where everything of it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import Misuse, UserError

if TYPE_CHECKING:
    from serving.releases.store import Store


def enclosing() -> Path | None:
    """The project that the current folder lies in, if any."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), None)


def project() -> Path:
    """The project's root, which holds dvc.yaml.

    Raises:
        Misuse: there is none at or above the current folder.
    """
    from stages.core import lockfile

    root = enclosing()
    if root is None:
        raise Misuse(f"{Path.cwd()} is not inside a millrace project: there is no dvc.yaml here or above")
    if not (root / "params.yaml").exists():
        raise Misuse(f"{root / 'params.yaml'} is missing: restore it with `git checkout params.yaml`")
    for mended in lockfile.recover(root):
        print(mended, file=sys.stderr)
    return root


def laid_out() -> dict[str, Path]:
    """Where everything of the graph lies."""
    from stages.settings import params

    root = project()
    return {name: root / path for name, path in params.paths(root / "dvc.yaml").items()}


def exported() -> dict[str, Path]:
    """Where everything of the graph lies, once there is an exported model.

    Raises:
        UserError: there is none.
    """
    paths = laid_out()
    if not paths["manifest"].exists():
        raise UserError("there is no exported model yet: make one with `millrace run`")
    return paths


def opened() -> Store:
    """The releases of this project on this host."""
    from serving.releases.store import Store

    return Store(project() / "live")


def only(names: list[str]) -> str:
    """The public name that is meant where none was said.

    Raises:
        Misuse: there are several, or none.
    """
    if not names:
        raise Misuse("nothing is released yet: `millrace release` does that")
    if len(names) > 1:
        raise Misuse(f"say which with --model: {', '.join(names)}")
    return names[0]
