"""Tools for tests of the whole pipeline: processes to follow and kill, a server, and stock clients."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from ruamel.yaml import YAML
from tritonclient.utils import InferenceServerException

from tests.support.project import Clone

NO_YARDSTICKS = {"above_constant": False, "margin": None}  # of the gate, for a network of a few epochs
LENIENT = {"thresholds": {"accuracy": {"min": 0.5}}, "slices": {}, "robustness": {}, "yardsticks": NO_YARDSTICKS}
FAST = {"train": {"epochs": 2}, "gate": LENIENT}


def hashes(clone: Clone) -> dict[str, str]:
    """Return the hash of every output in dvc.lock, except for the times."""
    stages = YAML(typ="safe").load(clone.folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for name, stage in stages.items() if name != "measure" for out in stage["outs"]}


def relatives(clone: Clone) -> list[psutil.Process]:
    """Return the processes whose working directory is the clone."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(clone.folder) and process.pid != os.getpid():
                processes.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return processes


def wait_gone(clone: Clone) -> None:
    """Fail unless every process of the clone ends within 20 seconds."""
    _, alive = psutil.wait_procs(relatives(clone), timeout=20)
    assert not alive, [process.cmdline() for process in alive]
    lock, deadline = clone.folder / ".dvc/tmp/rwlock", time.monotonic() + 60
    holders = re.findall(r'"pid": (\d+)', lock.read_text()) if lock.exists() else []
    while any(psutil.pid_exists(int(holder)) for holder in holders):  # to DVC an unreaped process is alive
        assert time.monotonic() < deadline, holders
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], wanted: str) -> None:
    """Read a process's output up to a line that contains `wanted`."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if wanted in line:
            return
    raise AssertionError(f"never printed {wanted!r}:\n{''.join(seen)}")


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill the process itself, and not its children."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


class serving:
    """Run `millrace release` and `serve` in a clone on free ports. At the end SIGTERM must leave no process behind."""

    def __init__(self, clone: Clone) -> None:
        self.clone = clone

    def __enter__(self) -> dict[str, str]:
        self.clone.millrace("release")
        ports = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
        self.process = self.clone.start(sys.executable, "-m", "flows.cli", "serve", *ports)
        line = self.process.stdout.readline()
        match = re.search(r"HTTP (\S+), gRPC (\S+)\. ", line)
        assert match, line + self.process.stdout.read()
        return {"http": match[1], "grpc": match[2]}

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        wait_gone(self.clone)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def picture(clone: Clone) -> Path:
    """Return the picture of a seven."""
    return min((clone.folder / "data/builtin/digits/7").iterdir())


def release(clone: Clone) -> str:
    """Return the id of the release that a clone has exported."""
    return hashlib.sha256((clone.folder / "models/manifest.json").read_bytes()).hexdigest()[:12]


def ask_grpc(address: str, path: Path) -> tuple[str, str]:
    """Return the class and the release that NVIDIA's own client gets by gRPC."""
    import tritonclient.grpc as triton

    return _ask(triton, address, path)


def ask_http(address: str, path: Path) -> tuple[str, str]:
    """Return the class and the release that NVIDIA's own client gets by HTTP."""
    import tritonclient.http as triton

    return _ask(triton, address, path)


def _ask(triton: object, address: str, path: Path) -> tuple[str, str]:
    image = triton.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[path.read_bytes()]], dtype=object))
    wanted = [triton.InferRequestedOutput("probabilities", class_count=1), triton.InferRequestedOutput("release")]
    client = triton.InferenceServerClient(address)
    try:
        answer = client.infer("digits", [image], outputs=wanted)
    except InferenceServerException as error:
        raise AssertionError(error.message()) from error
    finally:
        client.close()
    _, _, label = answer.as_numpy("probabilities")[0, 0].decode().split(":")
    return label, bytes(answer.as_numpy("release")[0]).decode()
