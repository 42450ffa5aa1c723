"""Several training processes as one command: if one fails, all others are ended and one line says what happened."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from stages.core.children import die_with_parent
from stages.core.errors import UserError

LAUNCHED = "MILLRACE_LAUNCHED"
POLL_S, GRACE_S = 0.1, 3.0
LOST = ("connection closed by peer", "connection reset", "broken pipe", "remote process exited")  # of gloo and of NCCL


def must_launch(devices: int, num_nodes: int) -> bool:
    """Whether params set several processes, and this one was not started by torchrun, srun or `launch`."""
    return devices * num_nodes > 1 and not {"LOCAL_RANK", "SLURM_NTASKS"} & os.environ.keys()


def launched() -> bool:
    """Whether this process was started by `launch`, which waits for it."""
    return LAUNCHED in os.environ


def launch(module: str, arguments: Sequence[Any], devices: int, num_nodes: int, threads: int) -> None:
    """Run `python -m module arguments` once for each device of this node, and wait for all processes.

    Lightning's own launcher runs in the first of the processes, so it can end the others but not explain why.

    Raises:
        UserError: a process failed; the others were ended.
    """
    shared = os.environ | _meeting_point(num_nodes) | {"OMP_NUM_THREADS": str(threads), LAUNCHED: "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        logs: list[IO[bytes]] = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(devices)]
        running = [
            stack.enter_context(_process(command, shared | {"LOCAL_RANK": str(rank)}, logs[rank] if rank else None))
            for rank in range(devices)
        ]
        _wait(running, logs)


@contextlib.contextmanager
def explain_lost_connection() -> Iterator[None]:
    """Turn the error of a process that lost its connection to another into a UserError.

    Raises:
        UserError: the connection to the others is lost.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text.lower() for sign in LOST):
            raise
        time.sleep(2 * GRACE_S)  # the launcher reports which process died and ends this one
        raise UserError(
            "train-connection-lost", f"lost the connection to another training process: {text.splitlines()[0]}"
        ) from error


def _meeting_point(num_nodes: int) -> dict[str, str]:
    """The environment variables with the address at which the processes meet."""
    if num_nodes > 1:
        needed = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
        if missing := [name for name in needed if name not in os.environ]:
            raise UserError(
                "train-node-variables",
                f"train.num_nodes is {num_nodes}: set {', '.join(missing)} on each node, or use torchrun or srun",
            )
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}


@contextlib.contextmanager
def _process(
    command: list[str], environment: dict[str, str], log: IO[bytes] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that ends with the block and with this process. With a `log`, its errors go there."""
    quiet: dict[str, Any] = (
        {} if log is None else {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": log}
    )
    process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, **quiet)  # noqa: PLW1509  # it calls prctl alone
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(running: list[subprocess.Popen[bytes]], logs: list[IO[bytes]]) -> None:
    while True:
        codes = [process.poll() for process in running]
        if failed := [(code, rank) for rank, code in enumerate(codes) if code]:
            _, rank = min(failed)  # signals, which are negative, cause the exit codes of other processes
            _explain(rank, running, logs[rank])
        if None not in codes:
            return
        time.sleep(POLL_S)


def _explain(failed: int, running: list[subprocess.Popen[bytes]], log: IO[bytes]) -> None:
    """Raise the reason why the process of rank `failed` ended."""
    code = running[failed].returncode
    if code > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may fail with the same error, which it prints
            running[0].wait(GRACE_S)
        if (running[0].returncode or 0) > 0:
            raise SystemExit(running[0].returncode)
        log.seek(0)
        sys.stderr.write(log.read().decode(errors="replace")[-4000:])
        ended = f"ended with exit code {code}"
    else:
        ended = f"died with signal {-code} ({signal.Signals(-code).name})"
        ended += ", perhaps out of memory" if -code == signal.SIGKILL else ""
    raise UserError(
        "train-process-ended",
        f"training process {failed + 1} of {len(running)} (rank {failed}, process {running[failed].pid}) {ended}; "
        "the others were stopped. Run again to resume after the last finished epoch",
    )
