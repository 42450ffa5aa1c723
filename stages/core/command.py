"""Run a stage's `main`, or another command: typed paths as arguments, and one-line errors."""

from __future__ import annotations

import argparse
import errno
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from stages.core import interrupts
from stages.core.children import die_with_parent
from stages.core.errors import UserError
from stages.core.printing import protect_printing


def run(main: Callable[..., None]) -> None:
    """Run a stage's `main` with the arguments of the command line; exit with the code of an error.

    The stage fails if its inputs changed while it ran, because DVC records what it finds after the stage has ended.
    """
    die_with_parent()
    reporting(lambda: _run(main))


def run_with_options(main: Callable[..., None]) -> None:
    """Run a `main` that is no stage, with the options of its signature; exit with the code of an error."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    die_with_parent()
    reporting(app)


def _run(main: Callable[..., None]) -> None:
    from stages.core import inputs, lockfile
    from stages.core.declared import declared_paths

    stage, declared = Path(sys.argv[0]).stem, declared_paths()
    paths = _arguments(stage, main, declared)
    moved = {declared[name]: str(path) for name, path in paths.items() if declared.get(name, str(path)) != str(path)}
    snapshot = inputs.take_snapshot(stage, sys.argv[1:], moved, inputs.started())
    recorded = snapshot if inputs.run_by_dvc(stage) else None
    if recorded is not None:
        lockfile.keep()
        inputs.verify(leave_out=stage)
        inputs.forget(stage)
    main(**paths)
    inputs.confirm()
    if recorded is not None:
        recorded.note()


def _arguments(stage: str, main: Callable[..., None], declared: Mapping[str, str]) -> dict[str, Path]:
    """The paths that `main` takes, by name: those of the command line, else the paths of dvc.yaml."""
    parser = argparse.ArgumentParser(f"python -m stages.{stage}", description=main.__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="paths in the order of the options")
    names = list(inspect.signature(main).parameters)
    for name in names:
        text = f"default: {declared[name]}" if name in declared else "required"
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="PATH", help=text)
    options = vars(parser.parse_args())
    given = options.pop("paths")
    if len(given) > len(names):
        parser.error(f"{len(given)} paths, but at most {len(names)} are taken")
    paths = {name: Path(path) for name, path in declared.items() if name in names}
    paths |= dict(zip(names, given, strict=False)) | {name: path for name, path in options.items() if path is not None}
    if missing := [name for name in names if name not in paths]:
        parser.error(f"--{missing[0].replace('_', '-')} is required")
    return paths


def reporting(app: Callable[[], object]) -> None:
    """Run a command line; report a user's mistake or a full disk in one line with an exit code, without a traceback."""
    interrupts.raised()
    protect_printing()
    try:
        app()
    except UserError as error:
        _end(error)
    except KeyboardInterrupt:
        sys.exit(interrupts.CODE)
    except OSError as error:
        if not _is_full(error):
            raise
        place = error.filename or "while writing"
        _end(UserError("disk-full", f"the disk is full ({place}): free space, then run again"))


def _end(error: UserError) -> NoReturn:
    print(error.line, file=sys.stderr)
    sys.exit(error.exit_code)


def _is_full(error: OSError) -> bool:
    """Whether an error means that the disk is full; if a tree was being copied, for any of its files."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, shutil.Error):
        return any(os.strerror(code) in str(error) for code in codes)
    return error.errno in codes
