"""Run a command, and leave no process of it behind even if the process that holds this one's stdin is killed.

    python -I -S guard.py spare|ask|end COMMAND ...

Linux's PR_SET_PDEATHSIG alone would not reach the children of a shell. The first argument says how the command ends
once stdin is closed:

- `end`: the command and its descendants are interrupted, then killed.
- `spare`: only its descendants are, because a DVC that is killed while it writes dvc.lock leaves half a file.
- `ask`: the command alone is interrupted, and has time to end its descendants in its own way.

This file uses the standard library only and imports no package, so that it starts in 20 ms.
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
    """Run `command` until it ends or stdin is closed; return its exit code."""
    if _prctl:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # adopt orphans, so that `below` finds them
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it in what it starts with `&`
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)  # noqa: PLW1509  # it calls prctl alone
    threading.Thread(target=_end_with_holder, args=(started, how), daemon=True).start()
    code = started.wait()
    while True:
        _send(signal.SIGKILL, below(os.getpid()))
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return code if code >= 0 else 128 - code


def below(process: int) -> set[int]:
    """The ids of all descendants of a process."""
    result: set[int] = set()
    for path in glob.glob(f"/proc/{process}/task/*/children"):
        try:
            with open(path) as file:
                children = [int(child) for child in file.read().split()]
        except OSError:
            continue
        for child in children:
            result |= {child} | below(child)
    return result


def _end_with_holder(started: "subprocess.Popen[bytes]", how: str) -> None:
    os.read(0, 1)  # nothing is ever written: returns when the other end is closed
    began = time.monotonic()
    interrupted: set[int] = set()
    while started.poll() is None:
        waited = time.monotonic() - began
        processes = below(os.getpid())
        targets = {started.pid} if how == "ask" else processes - ({started.pid} if how == "spare" else set())
        _send(signal.SIGINT, targets - interrupted)  # once: a second signal would abort the clean-up
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
