"""Run by test_full_disk in a mount namespace of its own: a server whose only disk is full goes on and heals.

unshare --mount python full_disk.py PROJECT FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from serving.releases import ledger
from serving.releases.proof import running_server
from serving.releases.store import Store
from serving.triton import processes, wire
from serving.triton.names import Names
from serving.triton.repository import golden
from tests.support.line import free_ports, read_until
from tests.support.project import Clone, until

PAGE = 4096


def main(project: Path, disk: Path) -> None:
    """Fill the disk while a server runs there; kill a worker, the server and its supervisor; free the space again."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", disk], check=True)
    root, temporary = shutil.copytree(project, disk / "root"), disk / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)
    store, ports = Store(root / "live"), free_ports(3)
    named = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    serve = (sys.executable, "-m", "flows.cli", "serve", *named)
    supervisor = Clone(root).start(*serve)
    try:
        read_until(supervisor, "Ctrl-C ends it")
        live = Names("digits", store.current("digits") or "")
        with store.ledger.open("ab") as file:  # to the end of a page: what is left of one could still be written
            file.write(b"\n" * (-file.tell() % PAGE))
        fill(disk / "filling")
        lines = len(ledger.lines(store.ledger))
        kill_worker(supervisor.pid, live)
        read_until(supervisor, "answers as digits")
        until(lambda: answers(ports[1], live))
        assert shutil.disk_usage(disk).free < PAGE and len(ledger.lines(store.ledger)) == lines
        status = Clone(root).millrace("status")
        assert "is full" in status and f"127.0.0.1:{ports[1]}" in status, status
        kill_server(supervisor.pid, live)
        read_until(supervisor, "Ctrl-C ends it")
        until(lambda: answers(ports[1], live))
        (disk / "filling").unlink()
        until(lambda: [line["event"] for line in ledger.lines(store.ledger)[lines:]] == ["healed", "restarted"])
        fill(disk / "filling")
        supervisor.kill()
        supervisor.communicate()
        os.environ["TMPDIR"] = "/tmp"  # a server needs room for its own files
        supervisor = Clone(root).start(*serve)
        os.environ["TMPDIR"] = str(temporary)
        read_until(supervisor, "Ctrl-C ends it")
        until(lambda: answers(ports[1], live))
        (disk / "filling").unlink()
        until(lambda: (store.announced() or {}).get("pid") == supervisor.pid)
        with running_server(store) as admin:
            assert admin and live.candidate in admin.loaded()
    finally:
        (disk / "filling").unlink(missing_ok=True)
        supervisor.send_signal(signal.SIGTERM)
        output, _ = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0 and "Traceback" not in output, output


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


def kill_worker(supervisor: int, live: Names) -> None:
    (worker,) = processes.workers(processes.family(supervisor), live.encode)
    os.kill(worker.pid, signal.SIGKILL)


def kill_server(supervisor: int, _: Names) -> None:
    (server,) = [
        process for process in psutil.Process(supervisor).children(recursive=True) if process.name() == "tritonserver"
    ]
    server.kill()


def answers(port: int, live: Names) -> bool:
    """Whether the live release answers now."""
    root = Path(os.environ["TMPDIR"]).parent / "root"
    schema, rows = golden(root / "live" / "repository", live)
    try:
        with wire.connected(f"127.0.0.1:{port}") as client:
            return set(wire.ask(client, live.public, schema, rows, timeout_s=1)["release"]) == {live.release}
    except Exception:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
