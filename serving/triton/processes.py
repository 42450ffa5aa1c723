"""The processes of a running server, as Linux shows them: which of its workers live, stand still or compute."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stages.core.guard import below

STUB = "triton_python_backend_stub"  # Triton's worker: a process for each instance of a Python model
DEAD, STOPPED = "ZX", "T"  # letters of /proc


class Process(NamedTuple):
    """`cpu_s`: seconds on a processor of all its threads so far."""

    pid: int
    state: str
    cpu_s: float
    command: str


def family(pid: int) -> list[Process]:
    """A process and all below it, as far as they can be seen."""
    found = (_process(each) for each in {pid} | below(pid))
    return [process for process in found if process]


def workers(processes: list[Process], model: str) -> list[Process]:
    """Those of one model that are not dead. None for a model whose backend has no process of its own."""
    return [each for each in processes if STUB in each.command and f"/{model}/" in each.command]


def servers(processes: list[Process]) -> list[Process]:
    """The server itself, without its guard and its workers."""
    return [each for each in processes if each.command.split("\0", 1)[0].endswith("tritonserver")]


def runs(process: Process) -> bool:
    """Whether any of its threads runs now, or waits for a processor."""
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with suppress(OSError):
            if _fields(path)[0] == "R":
                return True
    return False


def lost(processes: list[Process]) -> int:
    """Workers that died and that the server has not given back.

    Triton 2.51 keeps a model for ever, with 36 threads and its shared memory, whose worker died during a request.
    """
    return sum(each.state in DEAD for each in processes)


def kill(pids: set[int], parent: int) -> None:
    """End those of `pids` that are still below `parent`: a number may be another process's by now."""
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
    return stat.read_text().rpartition(")")[2].split()  # a process's name may hold blanks and brackets
