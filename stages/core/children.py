"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from stages.core.errors import UserError

How = Literal["spare", "ask", "end"]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
GUARD = Path(__file__).with_name("guard.py")
RUNS = ("stages/core/guard.py",)
_PR_SET_PDEATHSIG = 1


class Children:
    """The child processes of a run. None of them outlives the block or this process."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for child in tuple(self._running):
            child.wait()

    def end(self) -> None:
        """End all children, and let no new one start."""
        with self._lock:
            self.ended = True
            for child in self._running:
                child.stdin.close()  # type: ignore[union-attr]

    @contextmanager
    def start(
        self, command: Sequence[str], *, how: How = "spare", shown: bool = False
    ) -> Iterator[subprocess.Popen[str]]:
        """Run `command` under stages/core/guard.py until the block ends.

        Args:
            how: how the guard ends it.
            shown: whether it writes to this process's own output instead of a pipe.

        Raises:
            ProcessLookupError: `end` has been called.
        """
        with self._lock:
            if self.ended:
                raise ProcessLookupError
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), how, *command],
                stdin=subprocess.PIPE,
                stdout=None if shown else subprocess.PIPE,
                stderr=None if shown else subprocess.STDOUT,
                text=True,
                errors="replace",
                env=child_environment(),
                start_new_session=True,
            )
            self._running.add(child)
        try:
            yield child
        finally:
            with self._lock:
                self._running.discard(child)
                child.stdin.close()  # type: ignore[union-attr]
            child.wait()
            if child.stdout:
                child.stdout.close()


def child_environment() -> dict[str, str]:
    """The environment of DVC and its stages. They run `python -m ...`, so this interpreter's folder leads PATH.

    Raises:
        UserError: that folder has a colon in its name.
    """
    programs = str(Path(sys.executable).parent)
    if os.pathsep in programs:
        raise UserError("project-colon-in-path", f"rename a folder of {programs}: PATH cannot hold a name with a colon")
    return {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_STUDIO_OFFLINE": "1",
        **loopback_direct(),
    }


def loopback_direct() -> dict[str, str]:
    """The variables that exempt this machine's own addresses from any proxy, besides the hosts already exempt."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in named.split(",") if host.strip()]
    if "*" not in hosts:  # it must stand alone
        hosts += [host for host in LOOPBACK if host not in hosts]
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(hosts))


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
