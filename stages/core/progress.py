"""Reports of progress, for a terminal or a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

BAR_S, LINE_S = 0.1, 5.0  # seconds between two reports: on a terminal, elsewhere


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


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
