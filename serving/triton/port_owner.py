"""Find out which process listens on a port of this machine. That is how a server is recognized."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"
_PROC = Path("/proc")


def listens_in(port: int, folder: str) -> bool:
    """Whether a process of this user whose working directory has the name `folder` listens on `port`.

    Each server has a working directory of its own.
    """
    sockets = set(_sockets(port))
    return any(sockets & _descriptors(process) for process in _PROC.glob("[0-9]*") if _directory(process) == folder)


def _sockets(port: int) -> Iterator[str]:
    """Yield the sockets that listen on a port, as /proc/PID/fd names them."""
    for line in (_PROC / "net" / "tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
            yield f"socket:[{inode}]"


def _directory(process: Path) -> str:
    with suppress(OSError):  # the process has ended
        if process.stat().st_uid != os.getuid():  # another user may choose any name, and root can read it
            return ""
        return Path(os.readlink(process / "cwd")).name.removesuffix(" (deleted)")
    return ""


def _descriptors(process: Path) -> set[str]:
    targets = set()
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                targets.add(os.readlink(descriptor))
    return targets
