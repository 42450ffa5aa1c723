"""The ledger: what was done to the live model, by whom and why. An append-only file with a JSON object per line."""

from __future__ import annotations

import errno
import getpass
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RELEASED, ROLLED_BACK = "released", "rolled back"
MOST_WAITING = 1000  # lines that are kept in memory where the disk is full
_ALWAYS = ("time", "event", "actor")  # the keys of every line


def append(path: Path, event: str, **facts: Any) -> None:
    """Add a line; it is on disk when this returns. A line that a crash has cut off stays as it is."""
    _write(path, _line(event, facts))


class Journal:
    """A ledger for a process that must go on where the disk is full. What cannot be written yet waits in memory."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._failing = False

    def append(self, event: str, **facts: Any) -> None:
        """Add a line, now or at a later `flush`."""
        self._waiting.append(_line(event, facts))
        self.flush()

    def flush(self) -> None:
        """Write the waiting lines. Only the first of several failures in a row is reported."""
        try:
            while self._waiting:
                _write(self._path, self._waiting[0])
                self._waiting.popleft()
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._report(f"{self._path} cannot be written ({error.strerror}): its lines are kept until it can")
            self._failing = True


def lines(path: Path) -> list[dict[str, Any]]:
    """Read all events, the oldest first. Invalid lines, cut off by a crash or edited by hand, are skipped."""
    events = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(isinstance(line.get(key), str) for key in _ALWAYS):
            events.append(line)
    return events


def live(events: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Return the release that should answer under a public name; None before the first one."""
    ids = [
        line.get("release") for line in events if line["event"] in (RELEASED, ROLLED_BACK) and line.get("name") == name
    ]
    return next((id for id in reversed(ids) if isinstance(id, str)), None)


def order(events: Sequence[Mapping[str, Any]], name: str) -> dict[str, int]:
    """Return each release under a public name -> the index of the line of its last promotion."""
    return {
        str(line["release"]): index
        for index, line in enumerate(events)
        if line["event"] == RELEASED and line.get("name") == name and "release" in line
    }


def _line(event: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "actor": _actor(), **facts}


def _write(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line and sync it. A line that cannot be written completely is removed again."""
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        cut_off = end and file.read(1) != b"\n"
        content = (b"\n" if cut_off else b"") + json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
