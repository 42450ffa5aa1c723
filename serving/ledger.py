"""What was done to the live model, by whom and why: lines of JSON that are only ever added."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RELEASED, ROLLED_BACK = "released", "rolled back"


def append(path: Path, event: str, **facts: Any) -> None:
    """Add a line, on disk when this returns. A line that a crash has torn stays as it is, by itself."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "actor": _actor(), **facts}
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = end and file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def lines(path: Path) -> list[dict[str, Any]]:
    """All lines, oldest first, without those that a crash has torn."""
    told = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            told.append(json.loads(line))
        except ValueError:
            continue
    return told


def live(told: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """The release that should answer under a public name; None before the first."""
    ids = [line["release"] for line in told if line["event"] in (RELEASED, ROLLED_BACK) and line["name"] == name]
    return ids[-1] if ids else None


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
