"""A temporary folder for one server: private to its owner, where programs may run, with a path that is safe in a shell.

Triton hands the paths of models and environments to a shell, and PATH cannot contain a colon. So a server sees links
in this folder instead of the users' own paths.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.core.errors import UserError

_PREFIX = "millrace-triton-"
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
_SHM = Path("/dev/shm")
Place = tuple[Path, int]  # a folder and its lock


@contextmanager
def scratch() -> Iterator[Place]:
    """Make a folder, and remove it when the block ends.

    The lock is held as long as any process has its descriptor open. The folder's name is the prefix of the server's
    shared memory.

    Raises:
        UserError: no folder is fit for it, see `base`.
    """
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base()))  # hidden from `sweep` until it is locked
    lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = hidden.rename(hidden.with_name(hidden.name[1:]))
    try:
        yield folder, lock
    finally:
        os.close(lock)
        _discard(folder)


def base() -> Path:
    """Return the folder in which such folders are made: TMPDIR, else the first other candidate that is fit.

    Raises:
        UserError: no candidate is fit.
    """
    candidates = _candidates()
    for folder in candidates:
        if _is_fit(folder):
            return folder
    tried = ", ".join(str(folder) for folder in candidates)
    raise UserError(
        "triton-no-scratch",
        f"the server needs a folder in which programs may run: {tried} are mounted noexec, not writable, or have"
        " characters other than letters, digits and ._+- in their names. Set TMPDIR to such a folder",
    )


def sweep() -> None:
    """Remove the folders of servers that were killed: no process holds their locks any more."""
    for folder in (path for place in _candidates() for path in place.glob(f"{_PREFIX}*")):
        with suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
        with suppress(OSError), (folder / "lock").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _discard(folder)


def _candidates() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR") or "/run", home, _SHM)
    return list(dict.fromkeys(Path(place) for place in places))


def _is_fit(folder: Path) -> bool:
    """Whether the path is safe and a file in the folder may be executed, which a file system mounted noexec denies."""
    if not (folder.is_absolute() and _PLAIN.fullmatch(str(folder))):
        return False
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{_PREFIX}", dir=folder) as file:
            os.fchmod(file.fileno(), 0o700)
            return os.access(file.name, os.X_OK)
    except OSError:
        return False


def remove_regions(folder: Path) -> None:
    """Remove the shared memory that a killed server left behind."""
    for region in _SHM.glob(f"{folder.name}*"):
        if region != folder:
            region.unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    remove_regions(folder)
    shutil.rmtree(folder, ignore_errors=True)
