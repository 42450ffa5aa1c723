"""The processes of a running server, read from /proc: which of its workers are alive, stopped or computing."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stages.core.guard import below

STUB = "triton_python_backend_stub"  # Triton's worker, one process for each instance of a Python model
DEAD, STOPPED = "ZX", "T"  # states in /proc/PID/stat


class Process(NamedTuple):
    """A process. `cpu_s`: seconds of CPU time that all its threads have used so far."""

    pid: int
    state: str
    cpu_s: float
    command: str


def family(pid: int) -> list[Process]:
    """Return a process and all its descendants that can be read."""
    processes = (_process(member) for member in {pid} | below(pid))
    return [process for process in processes if process]


def workers(processes: list[Process], model: str) -> list[Process]:
    """Return the workers of one model that are not dead; none where its backend runs in the server's process."""
    return [process for process in processes if STUB in process.command and f"/{model}/" in process.command]


def servers(processes: list[Process]) -> list[Process]:
    """Return the server's own process, without its guard and its workers."""
    return [process for process in processes if process.command.split("\0", 1)[0].endswith("tritonserver")]


def runs(process: Process) -> bool:
    """Whether any thread of a process runs now or waits for a CPU."""
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with suppress(OSError):
            if _fields(path)[0] == "R":
                return True
    return False


def lost(processes: list[Process]) -> int:
    """Count the dead workers whose resources the server has not released.

    Where a worker dies during a request, Triton 2.51 never releases its model: 36 threads and the shared memory.
    """
    return sum(process.state in DEAD for process in processes)


def kill(pids: set[int], parent: int) -> None:
    """Kill those of `pids` that still are descendants of `parent`: an id may have been reused."""
    for pid in pids & below(parent):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _process(pid: int) -> Process | None:
    folder = Path("/proc") / str(pid)
    try:
        fields = _fields(folder / "stat")
        command = (folder / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    return Process(pid, fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), command)


def _fields(stat: Path) -> list[str]:
    return stat.read_text().rpartition(")")[2].split()  # a process's name may contain blanks and brackets
