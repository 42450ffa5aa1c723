"""Several training processes as one command: all of them end well, or none stays and one line says what happened."""

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

from stages.core.command import die_with_parent
from stages.core.errors import UserError

LAUNCHED = "MILLRACE_LAUNCHED"
POLL_S, GRACE_S = 0.1, 3.0
LOST = ("connection closed by peer", "connection reset", "broken pipe", "remote process exited")  # gloo's words, NCCL's


def ours_to_start(devices: int, num_nodes: int) -> bool:
    """Whether several processes are asked for, and neither torchrun nor srun nor `launch` has started this one."""
    return devices * num_nodes > 1 and not {"LOCAL_RANK", "SLURM_NTASKS"} & os.environ.keys()


def launched() -> bool:
    """Whether `launch` has started this process, and waits for it."""
    return LAUNCHED in os.environ


def launch(module: str, arguments: Sequence[Any], devices: int, num_nodes: int, threads: int) -> None:
    """Run `python -m module arguments` once for each device of this node, and wait for all.

    Lightning's own launcher watches its processes from within the first of them, so that it can kill, but not explain.

    Raises:
        UserError: a process ended badly; the others have been killed.
    """
    shared = os.environ | _meeting_point(num_nodes) | {"OMP_NUM_THREADS": str(threads), LAUNCHED: "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(devices)]
        running = [
            stack.enter_context(_process(command, shared | {"LOCAL_RANK": str(rank)}, said[rank] if rank else None))
            for rank in range(devices)
        ]
        _wait(running, said)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Explain what a process sees when another one is gone.

    Raises:
        UserError: the connection to the others is lost.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text.lower() for sign in LOST):
            raise
        time.sleep(2 * GRACE_S)  # whoever started the processes knows which one died, says so and ends this one
        raise UserError(f"lost the connection to another training process: {text.splitlines()[0]}") from error


def _meeting_point(num_nodes: int) -> dict[str, str]:
    """The address at which the processes find each other, as environment variables."""
    if num_nodes > 1:
        needed = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
        if missing := [name for name in needed if name not in os.environ]:
            raise UserError(
                f"train.num_nodes is {num_nodes}: set {', '.join(missing)} on each node, or start with torchrun or srun"
            )
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str], said: IO[bytes] | None) -> Iterator[subprocess.Popen]:
    """A process that does not outlive the block, nor this process; quiet where what it says goes to `said`."""
    quiet = {} if said is None else {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": said}
    process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, **quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(running: list[subprocess.Popen], said: list[IO[bytes]]) -> None:
    while True:
        codes = [process.poll() for process in running]
        if bad := [(code, rank) for rank, code in enumerate(codes) if code]:
            _, rank = min(bad)  # signals are negative; what the others made of it comes after
            _explain(rank, running, said[rank])
        if None not in codes:
            return
        time.sleep(POLL_S)


def _explain(failed: int, running: list[subprocess.Popen], said: IO[bytes]) -> None:
    """End this process with the reason why the `failed` one ended."""
    code = running[failed].returncode
    if code > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may be about to fail alike, and speaks for all
            running[0].wait(GRACE_S)
        if (running[0].returncode or 0) > 0:
            raise SystemExit(running[0].returncode)
        said.seek(0)
        sys.stderr.write(said.read().decode(errors="replace")[-4000:])
        ended = f"ended with exit code {code}"
    else:
        ended = f"died with signal {-code} ({signal.Signals(-code).name})"
        ended += ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    raise UserError(
        f"training process {failed + 1} of {len(running)} (rank {failed}, process {running[failed].pid}) {ended}; "
        "the others were stopped. Run again: it goes on from the last finished epoch"
    )
