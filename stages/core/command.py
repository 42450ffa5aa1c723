"""What every stage's command shares: typed paths as arguments, one-line errors, outputs that are never half written."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import inspect
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core import interrupts
from stages.core.errors import Busy, UserError

BAR_S, LINE_S = 0.1, 5.0  # seconds between two reports of progress: on a terminal, elsewhere
_PR_SET_PDEATHSIG = 1


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
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(interrupts.CODE)
    except OSError as error:
        if not _is_full(error):
            raise
        print(
            f"error: the disk is full ({error.filename or 'while writing'}): free space, then run again",
            file=sys.stderr,
        )
        sys.exit(1)


def protect_printing() -> None:
    """Keep `print` from failing: escape characters that the terminal cannot show, drop output that nobody reads."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _discard(number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            lossy = _LossyStream(number, "w", closefd=False)
            line_buffering, write_through = stream.line_buffering or number == 2, stream.write_through  # python -u
            buffer = lossy if write_through else io.BufferedWriter(lossy)
            replacement = io.TextIOWrapper(
                buffer, stream.encoding, "backslashreplace", line_buffering=line_buffering, write_through=write_through
            )
            setattr(sys, name, replacement)


class _LossyStream(io.FileIO):
    """A stream that drops what it cannot write, because its reader is gone or the disk is full."""

    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(content)
        return len(content)


def _discard(number: int) -> None:
    """Open a closed descriptor on the null device, for child processes as well."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nothing, number)
        os.close(nothing)


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder to; it replaces `path` if the block raises nothing."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)
        os.replace(partial, path)
    finally:
        _remove(partial)


@contextlib.contextmanager
def holding(lock: Path, doing: str) -> Iterator[None]:
    """Hold a lock file until the block ends; `doing` is what it protects, for messages.

    Raises:
        Busy: another process holds the lock; the message names it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            raise Busy(f"{doing} is at work here already (process {holder}): wait for it, or end it") from None
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield


def holder(lock: Path) -> int | None:
    """The id of the process that holds a lock, 0 if it has not written its id yet, None if the lock is free."""
    if not lock.exists():
        return None
    with lock.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Report progress in a bar on a terminal, elsewhere in a line every few seconds.

    Yields a function to call with the number of items done since the last call; `what` names the items.
    """
    terminal = sys.stderr.isatty()
    with _bar() if terminal else contextlib.nullcontext(_line) as report:
        done, started = 0, time.monotonic()
        reported = started

        def count(more: int) -> None:
            nonlocal done, reported
            done += more
            now = time.monotonic()
            if now - reported >= (BAR_S if terminal else LINE_S):
                report(f"{done:,} {what}, {done / (now - started):,.0f}/s")
                reported = now

        yield count


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # no refresh thread: a stage must not fork its workers while one runs
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=None)  # items are read lazily: their number is unknown
        yield lambda text: bar.update(task, description=text, refresh=True)


def _is_full(error: OSError) -> bool:
    """Whether an error means that the disk is full; if a tree was being copied, for any of its files."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, shutil.Error):
        return any(os.strerror(code) in str(error) for code in codes)
    return error.errno in codes


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
