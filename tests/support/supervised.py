"""`millrace serve` as a process that runs until its block ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from serving.releases.candidate import Candidate
from tests.support.line import free_ports, read_until
from tests.support.project import Clone
from tests.support.releases import live_answers

PORTS = ("http", "grpc", "metrics")


def options(ports: list[int]) -> list[str]:
    return [f"--{name}-port={port}" for name, port in zip(PORTS, ports, strict=True)]


@contextlib.contextmanager
def serving(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the command's process and its gRPC address. At the end check that SIGTERM leaves no process behind."""
    ports = free_ports(3)
    process = Clone(root).start(sys.executable, "-m", "flows.cli", "serve", *options(ports))
    try:
        read_until(process, "Ctrl-C ends it")
        yield process, f"127.0.0.1:{ports[1]}"
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output, output
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive
    assert process.returncode == 0


def answering(address: str, candidates: list[Candidate], release: str) -> Callable[[], bool]:
    def condition() -> bool:
        try:
            return live_answers(address, candidates) == release
        except Exception:
            return False

    return condition
