"""What every stage's command shares: typed paths as arguments, one-line errors, outputs whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.core import interrupts
from stages.core.errors import Busy, UserError

BAR_S, LINE_S = 0.1, 5.0  # between two signs of progress
_PR_SET_PDEATHSIG = 1


def run(main: Callable[..., None]) -> None:
    """Run a stage's `main` with the command line's arguments; exit with an error's own code.

    What it was given must be there unchanged when it ends: DVC records what it finds afterwards.
    """
    die_with_parent()
    reporting(lambda: _run(main))


def _run(main: Callable[..., None]) -> None:
    from stages.core import inputs, lockfile

    stage = Path(sys.argv[0]).stem
    snapshot = inputs.take(stage, sys.argv[1:], inputs.started())
    recorded_by_dvc = snapshot is not None and inputs.driven(stage)
    if recorded_by_dvc:
        lockfile.keep()
        inputs.verify(beside=stage)
        inputs.forget(stage)

    @functools.wraps(main)
    def confirmed(*arguments: Any, **options: Any) -> None:
        main(*arguments, **options)
        inputs.confirm()
        if recorded_by_dvc:
            snapshot.note()

    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(confirmed)
    app()


def reporting(app: Callable[[], object]) -> None:
    """Run a command line; a person's mistake and a full disk are one line and an exit code, not a traceback."""
    interrupts.raised()
    printing_anything()
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


def printing_anything() -> None:
    """Let no `print` fail: what the terminal cannot show is escaped, and what nobody reads is dropped."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _discard(number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = _Forgiving(number, "w", closefd=False)
            line, through = stream.line_buffering or number == 2, stream.write_through  # as with python -u
            buffer = raw if through else io.BufferedWriter(raw)
            whole = io.TextIOWrapper(
                buffer, stream.encoding, "backslashreplace", line_buffering=line, write_through=through
            )
            setattr(sys, name, whole)


class _Forgiving(io.FileIO):
    """A stream whose reader may be gone, or whose disk full."""

    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(content)
        return len(content)


def _discard(number: int) -> None:
    """Let a closed descriptor take anything, for what this process starts as well."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nothing, number)
        os.close(nothing)


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to; it takes `path`'s place when the block ends well."""
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
    """Keep others from `doing` the same until the block ends, however it ends.

    Raises:
        Busy: another process holds the lock; it is named.
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
    """The process that holds a lock now, 0 if it has not said which; None where nobody does."""
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
    """Call what it gives with how many are done since; a bar on a terminal, else a line every few seconds, says it."""
    terminal = sys.stderr.isatty()
    with _bar() if terminal else contextlib.nullcontext(_line) as tell:
        done, started = 0, time.monotonic()
        reported = started

        def count(more: int) -> None:
            nonlocal done, reported
            done += more
            now = time.monotonic()
            if now - reported >= (BAR_S if terminal else LINE_S):
                tell(f"{done:,} {what}, {done / (now - started):,.0f}/s")
                reported = now

        yield count


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # refreshed by hand: a thread that draws must not be there when a stage forks its workers
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=None)  # what is counted is read lazily, so nobody knows how much there will be
        yield lambda text: bar.update(task, description=text, refresh=True)


def _is_full(error: OSError) -> bool:
    """Whether there was no room; where a tree was being copied, for any of its files."""
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
