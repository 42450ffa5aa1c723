"""Lock files: one process at a time does a thing, and others learn which process it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from stages.core.errors import Busy


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
            raise Busy(
                "lock-held", f"{doing} is at work here already (process {holder}): wait for it, or end it"
            ) from None
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
