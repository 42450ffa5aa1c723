"""Which process listens on a port of this machine: how a server is recognized, whatever it calls itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"
_PROC = Path("/proc")


def listens_in(port: int, folder: str) -> bool:
    """Whether a process of ours listens on `port` in a working directory of this name, as each server's is its own."""
    sockets = set(_sockets(port))
    return any(sockets & _descriptors(process) for process in _PROC.glob("[0-9]*") if _directory(process) == folder)


def _sockets(port: int) -> Iterator[str]:
    """As /proc/PID/fd names them, those that listen on a port."""
    for line in (_PROC / "net" / "tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
            yield f"socket:[{inode}]"


def _directory(process: Path) -> str:
    with suppress(OSError):  # gone
        if process.stat().st_uid != os.getuid():  # root could read another user's too, who may choose any name
            return ""
        return Path(os.readlink(process / "cwd")).name.removesuffix(" (deleted)")
    return ""


def _descriptors(process: Path) -> set[str]:
    found = set()
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(descriptor))
    return found
