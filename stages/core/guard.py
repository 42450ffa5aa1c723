"""Run a command and leave nothing of it behind, not even when the process that holds our stdin is killed.

    python -I -S guard.py spare|ask|end COMMAND ...

Linux's PR_SET_PDEATHSIG alone would spare a shell and what it runs. With `spare` the command is not killed itself but
what it has started: a DVC that is killed while it writes dvc.lock or its rwlock leaves half a file. With `ask` the
command alone is interrupted, and given time to end what it has started in its own way. Standard library only and no
package around it, so that it begins in 20 ms.
"""

import contextlib
import ctypes
import glob
import os
import signal
import subprocess
import sys
import threading
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
INTERRUPT_S, ASK_S, SPARE_S = 3, 15, 10
POLL_S = 0.05

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def guard(command: list[str], how: str) -> int:
    """Run `command` to its end, or until our stdin is closed; its exit code."""
    if _prctl:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what loses its parent becomes ours, so that `below` finds it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what was started with `&`
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)
    threading.Thread(target=_end_with_holder, args=(started, how), daemon=True).start()
    code = started.wait()
    while True:
        _send(signal.SIGKILL, below(os.getpid()))
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return code if code >= 0 else 128 - code


def below(process: int) -> set[int]:
    """All processes that a process has started, and those that they have."""
    found: set[int] = set()
    for path in glob.glob(f"/proc/{process}/task/*/children"):
        try:
            with open(path) as file:
                children = [int(child) for child in file.read().split()]
        except OSError:
            continue
        for child in children:
            found |= {child} | below(child)
    return found


def _end_with_holder(started: "subprocess.Popen[bytes]", how: str) -> None:
    os.read(0, 1)  # nothing is ever written: this returns when the other end is closed
    began = time.monotonic()
    interrupted: set[int] = set()
    while started.poll() is None:
        waited = time.monotonic() - began
        processes = below(os.getpid())
        targets = {started.pid} if how == "ask" else processes - ({started.pid} if how == "spare" else set())
        _send(signal.SIGINT, targets - interrupted)  # once: a second one would break off its clean-up
        interrupted |= targets
        if waited > (ASK_S if how == "ask" else INTERRUPT_S):
            _send(signal.SIGKILL, processes if how == "ask" else targets)
        if waited > (ASK_S if how == "ask" else SPARE_S):
            os.killpg(0, signal.SIGKILL)
        time.sleep(POLL_S)


def _die_with_guard() -> None:
    if _prctl:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _send(number: int, processes: set[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


if __name__ == "__main__":
    os._exit(guard(sys.argv[2:], sys.argv[1]))  # the thread still reads
