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

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.intake import clean_sheet, guess, look, recipe
from flows.intake.notices import notices
from flows.intake.survey import Survey
from stages.core import command
from stages.core.errors import Misuse, UserError
from stages.core.files import replacing
from stages.evaluation import metrics
from stages.schema import Column
from stages.settings import params, sections
from stages.tables import overlooked, sources

RAW = Path("data/raw")


def main(path: Path, name: str | None = None, target: str = "", options: str = "{}") -> None:
    """Copy the data, track them with DVC, and set params.yaml to them. `options`: `data.options` as YAML."""
    path = path.expanduser()
    if not path.exists():
        raise Misuse("data-not-found", f"there is no {path}")
    if name is None:
        stem = path.resolve().stem if path.is_file() else path.resolve().name
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "data"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise Misuse("data-invalid-name", f"the name {name!r} must consist of letters, digits, '.', '_' and '-'")
    format_name = recognize(path)
    folder = RAW / name
    given = parse_options(options, format_name)
    examined = guess.survey(
        path, format_name, sections.options(sources.source(format_name), given, "data.options"), target
    )
    guessed = examined[0] if examined else None
    given |= guessed.options() if guessed else {}
    copy_in(path, folder)
    track(folder)
    changes: dict[str, dict[str, Any]] = {
        "data": {"path": folder.as_posix(), "format": format_name, "options": given},
        "export": {"name": public_name(name)},
        **schema_of(*((guessed.features, guessed.target) if guessed else look.NO_TABLE)),
    }
    declared = changes["schema"]
    rows = examined[1].rows if examined else None
    chosen = recipe.choose(look.facts(folder, format_name, given, declared["features"], declared["target"], rows))
    params.edit(clean_sheet.over(changes | chosen.sections))
    params.annotate(chosen.reasons)
    print(
        f"{folder} is tracked by DVC, and params.yaml now has:\n  data:\n    path: {folder}\n    format: {format_name}"
    )
    if given:
        print(f"    options: {json.dumps(given, ensure_ascii=False)}    # how the files are written")
    print(f"  export:\n    name: {public_name(name)}    # the model's public name")
    if examined:
        show(*examined)
    for note in overlooked.notes(path, format_name):
        print(f"warning: {note}")
    print(f"Next: {next_steps(guessed, folder)}`git add {RAW} params.yaml`, `git commit`, and `millrace run`")


def schema_of(features: list[guess.Guess], target: guess.Guess) -> dict[str, dict[str, Any]]:
    """The sections of params.yaml that follow from the columns."""
    measures = metrics.of(Column(target.name, f"target_{target.kind}"))
    return {
        "schema": {
            "features": {column.name: column.kind for column in features if column.kind},
            "target": {target.name: target.kind},
            "keep": [],
        },
        "validate": {"columns": measures.EXPECTED and {target.name: measures.EXPECTED}},
        "gate": {"margins": measures.MARGINS},
    }


def parse_options(options: str, format_name: str) -> dict[str, Any]:
    """Parse `--options`.

    Raises:
        Misuse: the text is not YAML, or not options of the format.
    """
    try:
        given = YAML(typ="safe").load(options)
        if not isinstance(given, dict):
            raise ValueError("write options like '{encoding: latin-1}'")
        sections.options(sources.source(format_name), given, "data.options")
    except (YAMLError, ValueError) as error:
        raise Misuse("data-invalid-options", f"--options {options!r}: {' '.join(str(error).split())}") from error
    return given


def public_name(name: str) -> str:
    """A name that Triton accepts."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:60]
    return cleaned if cleaned[0].isalpha() else f"of-{cleaned}"


def show(guessed: guess.Guessed, survey: Survey) -> None:
    """Print the guesses as a table, and warnings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"guessed from {survey.rows:,} rows: see schema in params.yaml", title_justify="left")
    for heading in ("column", "kind", "missing", "distinct", "such as", ""):
        table.add_column(heading)
    for column in [*guessed.features, guessed.target]:
        cells = [column.name, column.kind or "-", f"{column.missing:.0%}", f"{column.distinct:,}", column.example[:24]]
        table.add_row(*(Text(cell) for cell in [*cells, column.note]))
    Console().print(table)
    for warning in [*guessed.doubts, *notices(guessed, survey)]:
        print(f"warning: {warning}")


def next_steps(guessed: guess.Guessed | None, folder: Path) -> str:
    """What to do with a table before `git add`."""
    add_again = f"if a warning is right, `millrace data add {folder} --options ...`; "
    correct = "correct the guesses under schema in params.yaml, `millrace data expect`, "
    return (add_again if guessed and guessed.doubts else "") + (correct if guessed else "")


def recognize(path: Path) -> str:
    """The name of the format that the path has.

    Raises:
        Misuse: it has none of the known formats.
    """
    formats = {name: sources.source(name) for name in sources.names()}
    for name, source in formats.items():
        if source.claims(path):
            return name
    what = "a file" if path.is_file() else "an empty folder" if not any(path.iterdir()) else "a folder"
    layouts = "; or ".join(f"{name}, {source.LAYOUT}" for name, source in formats.items())
    raise Misuse("data-unknown-format", f"{path} is {what} in no known format: {layouts}")


def copy_in(path: Path, folder: Path) -> None:
    """Copy to `folder`, completely or not at all; existing data are not replaced.

    Raises:
        Misuse: the folder exists and has other data, or the path contains this project.
    """
    if folder.exists() and folder.resolve() == path.resolve():
        return
    if path.resolve() in folder.resolve().parents:
        raise Misuse(
            "data-contains-project", f"{path} contains this project: name a folder that contains only the data"
        )
    if folder.exists():
        other_name = f"millrace data add {shlex.quote(str(path))} --name NAME"
        read_again = f"`millrace data add {folder}` reads it again"
        raise Misuse(
            "data-name-taken",
            f"{folder} exists: {read_again}; for other data give another name, `{other_name}`, or remove it first",
        )
    with replacing(folder) as scratch:
        if path.is_dir():
            shutil.copytree(path, scratch, symlinks=True)
        else:
            scratch.mkdir(parents=True)
            shutil.copy2(path, scratch / path.name)


def track(folder: Path) -> None:
    """Track the folder with `dvc add`."""
    process = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", str(folder)], check=False)
    if process.returncode:
        raise UserError(
            "dvc-failed", f"`dvc add {folder}` failed; the data are in {folder}, and params.yaml is unchanged"
        )


if __name__ == "__main__":
    command.run_with_options(main)
