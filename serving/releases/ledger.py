"""What was done to the live model, by whom and why: lines of JSON that are only ever added."""

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
_ALWAYS = ("time", "event", "actor")  # what every line holds


def append(path: Path, event: str, **facts: Any) -> None:
    """Add a line, on disk when this returns. A line that a crash has torn stays as it is, by itself."""
    _write(path, _line(event, facts))


class Journal:
    """A ledger for a process that must go on where the disk is full: what cannot be written waits until it can."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._failing = False

    def append(self, event: str, **facts: Any) -> None:
        """Add a line now, or with a later `flush`."""
        self._waiting.append(_line(event, facts))
        self.flush()

    def flush(self) -> None:
        """Write what waits. The first failure in a row is reported."""
        try:
            while self._waiting:
                _write(self._path, self._waiting[0])
                self._waiting.popleft()
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._tell(f"{self._path} cannot be written ({error.strerror}); its lines are added when it can")
            self._failing = True


def lines(path: Path) -> list[dict[str, Any]]:
    """All events, oldest first. Lines that are none, torn by a crash or edited by hand, are left out."""
    found = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(isinstance(line.get(key), str) for key in _ALWAYS):
            found.append(line)
    return found


def live(told: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """The release that should answer under a public name; None before the first."""
    ids = [
        line.get("release") for line in told if line["event"] in (RELEASED, ROLLED_BACK) and line.get("name") == name
    ]
    return next((id for id in reversed(ids) if isinstance(id, str)), None)


def order(events: Sequence[Mapping[str, Any]], name: str) -> dict[str, int]:
    """Release -> place among all lines of its last promotion under a public name."""
    return {
        str(line["release"]): place
        for place, line in enumerate(events)
        if line["event"] == RELEASED and line.get("name") == name and "release" in line
    }


def _line(event: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "actor": _actor(), **facts}


def _write(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line and sync it; a line that cannot be written whole is taken back."""
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = end and file.read(1) != b"\n"
        content = (b"\n" if torn else b"") + json.dumps(line, ensure_ascii=False).encode() + b"\n"
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
    except (KeyError, OSError):  # a container's number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
