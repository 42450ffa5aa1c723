"""Bring a data set into the project: copied to data/raw/NAME, tracked by DVC, named in params.yaml."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from flows.intake import guess
from stages.core import command
from stages.core.errors import Misuse, UserError
from stages.evaluation import metrics
from stages.schema import Column
from stages.settings import params, sections
from stages.tables import sources

RAW = Path("data/raw")


def main(path: Path, name: str | None = None, target: str = "", options: str = "{}") -> None:
    """Copy, track, and point the pipeline at it. `options` is YAML, as `data.options` has it."""
    path = path.expanduser()
    if not path.exists():
        raise Misuse(f"there is no {path}")
    if name is None:
        own = path.resolve().stem if path.is_file() else path.resolve().name
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-.") or "data"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise Misuse(f"the name {name!r} must consist of letters, digits, '.', '_' and '-'")
    form = recognise(path)
    place = RAW / name
    said = parsed(options, form)
    guessed = guess.table(path, form, sections.options(sources.source(form), said, "data.options"), target)
    said |= guessed.options() if guessed else {}
    bring(path, place)
    track(place)
    changes: dict[str, dict[str, Any]] = {
        "data": {"path": place.as_posix(), "format": form, "options": said},
        "split": {"by": "hash", "column": "none"},  # another set's column is none of this one's
        "export": {"name": public(name)},
    }
    if guessed:
        changes |= schema_of(guessed.features, guessed.target)
    params.edit(changes)
    print(f"{place} is under DVC, and params.yaml says:\n  data:\n    path: {place}\n    format: {form}")
    if said:
        print(f"    options: {json.dumps(said, ensure_ascii=False)}    # how the files are written")
    print(f"  export:\n    name: {public(name)}    # what callers will know the model by")
    if guessed:
        show(guessed)
    print(f"Next: {upcoming(guessed, place)}`git add {RAW} params.yaml`, `git commit`, and `millrace run`")


def schema_of(features: list[guess.Guess], target: guess.Guess) -> dict[str, dict[str, Any]]:
    """What params.yaml shall say of a table."""
    measures = metrics.of(Column(target.name, f"target_{target.kind}"))
    return {
        "schema": {
            "features": {column.name: column.kind for column in features if column.kind},
            "target": {target.name: target.kind},
            "keep": [],
        },
        "validate": {"columns": measures.EXPECTED and {target.name: measures.EXPECTED}},
        "model": {"encoders": {}, "trunk": {"name": "residual"}, "head": {}},
        "train": {"augment": {}},
        "gate": {"thresholds": measures.THRESHOLDS, "margins": measures.MARGINS, "slices": {}, "robustness": {}},
    }


def parsed(options: str, form: str) -> dict[str, Any]:
    """What a person says of the files on the command line.

    Raises:
        Misuse: it is no YAML, or not what the format knows.
    """
    try:
        said = YAML(typ="safe").load(options)
        if not isinstance(said, dict):
            raise ValueError("these are no options, which look like '{encoding: latin-1}'")
        sections.options(sources.source(form), said, "data.options")
    except (YAMLError, ValueError) as error:
        raise Misuse(f"--options {options!r}: {' '.join(str(error).split())}") from error
    return said


def public(name: str) -> str:
    """A name that Triton takes."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:60]
    return plain if plain[0].isalpha() else f"of-{plain}"


def show(guessed: guess.Guessed) -> None:
    """What was guessed, as a table, and what may be wrong with it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="guessed from the first rows: see schema in params.yaml", title_justify="left")
    for heading in ("column", "kind", "missing", "distinct", "such as", ""):
        table.add_column(heading)
    for column in [*guessed.features, guessed.target]:
        cells = [column.name, column.kind or "-", f"{column.missing:.0%}", f"{column.distinct:,}", column.example[:24]]
        table.add_row(*(Text(cell) for cell in [*cells, column.note]))
    Console().print(table)
    for doubt in guessed.doubts:
        print(f"warning: {doubt}")


def upcoming(guessed: guess.Guessed | None, place: Path) -> str:
    """What a person does with a table before it goes into git."""
    again = f"where a warning is right, `millrace data add {place} --options ...`; "
    mended = "mend the guesses under schema in params.yaml, `millrace data expect`, "
    return (again if guessed and guessed.doubts else "") + (mended if guessed else "")


def recognise(path: Path) -> str:
    """The format whose source claims the path.

    Raises:
        Misuse: none does.
    """
    known = {name: sources.source(name) for name in sources.names()}
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
        anew = f"`millrace data add {place}` reads it anew"
        raise Misuse(f"{place} exists: {anew}; for other data give another name, `{again}`, or remove it first")
    with command.replacing(place) as whole:
        if path.is_dir():
            shutil.copytree(path, whole, symlinks=True)
        else:
            whole.mkdir(parents=True)
            shutil.copy2(path, whole / path.name)


def track(place: Path) -> None:
    """`dvc add`."""
    done = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", str(place)], check=False)
    if done.returncode:
        raise UserError(f"`dvc add {place}` failed; the data lie in {place} and params.yaml is as it was")


if __name__ == "__main__":
    command.run(main)
