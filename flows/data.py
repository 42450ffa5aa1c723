"""Bring a data set into the project: copied to data/raw/NAME, tracked by DVC, named in params.yaml."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from stages import command, params, settings, sources
from stages.errors import Misuse, UserError

RAW = Path("data/raw")


def main(path: Path, name: str | None = None) -> None:
    """Copy, track, and point the pipeline at it."""
    path = path.expanduser()
    if not path.exists():
        raise Misuse(f"there is no {path}")
    name = name if name is not None else re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "data"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise Misuse(f"the name {name!r} must consist of letters, digits, '.', '_' and '-'")
    form = guess(path)
    place = RAW / name
    bring(path, place)
    track(place)
    params.edit({"data": {"path": place.as_posix(), "format": form}})
    print(f"{place} is under DVC, and params.yaml says:\n  data:\n    path: {place}\n    format: {form}")
    print(f"Next: `git add {RAW} params.yaml`, `git commit`, and `millrace run`")


def guess(path: Path) -> str:
    """The format whose source claims the path.

    Raises:
        Misuse: none does.
    """
    known = {name: sources.source(name) for name in settings.formats()}
    for name, source in known.items():
        if source.claims(path):
            return name
    what = "a file" if path.is_file() else "an empty folder" if not any(path.iterdir()) else "a folder"
    formats = "; or ".join(f"{name}, {source.LAYOUT}" for name, source in known.items())
    raise Misuse(f"{path} is {what} of no format known here: {formats}")


def bring(path: Path, place: Path) -> None:
    """Copy to `place`, whole or not at all; what lies there already is left alone.

    Raises:
        Misuse: something else has that name.
    """
    if place.exists() and place.resolve() == path.resolve():
        return
    if path.resolve() in place.resolve().parents:
        raise Misuse(f"{path} holds this project itself: name the folder that holds the data alone")
    if place.exists():
        again = f"millrace data add {shlex.quote(str(path))} --name NAME"
        raise Misuse(f"{place} exists: give another name, `{again}`, or remove it first")
    with command.replacing(place) as whole:
        shutil.copytree(path, whole, symlinks=True)


def track(place: Path) -> None:
    """`dvc add`."""
    done = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", str(place)], check=False)
    if done.returncode:
        raise UserError(f"`dvc add {place}` failed; the data lie in {place} and params.yaml is as it was")


if __name__ == "__main__":
    command.run(main)
