"""The processes in which Triton runs Python models, one for each instance: ended for certain where a model is healed.

Triton asks a worker to end when its model is loaded anew or unloaded. One that is stopped, or stuck in a long
computation, does not hear it: the process stays, and threads of the server wait for it for ever.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from serving.guard import below

_STUB = "triton_python_backend_stub"


def find_workers(server: int, model: str) -> list[int]:
    """The processes below `server`, a process number, that run a version of `model`."""
    return [process for process in sorted(below(server)) if _runs(process, model)]


def end_workers(server: int, model: str) -> int:
    """Kill them; how many there were. Load the model anew afterwards, with its version's folder touched."""
    workers = find_workers(server, model)
    for process in workers:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(workers)


def _runs(process: int, model: str) -> bool:
    """By its command line: the stub, then the path of MODEL/VERSION/model.py."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if len(command) < 2 or not command[0].endswith(_STUB.encode()):
        return False
    return os.fsdecode(command[1]).split("/")[-3:-2] == [model]
