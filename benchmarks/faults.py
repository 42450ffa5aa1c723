"""Faults while four clients send requests: the time until all predictions are correct again, and errors meanwhile.

A real `millrace serve` runs on a disk that can be filled, and is restarted when it dies, as by systemd. Every
prediction is compared with the golden ones of the release that it names.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from benchmarks import pages, releases, workspace
from serving.releases import release as releasing
from serving.releases import rollback as returning
from serving.releases.candidate import Candidate
from serving.releases.store import Store
from serving.triton import processes, wire
from serving.triton.names import Names
from serving.triton.repository import golden
from stages.core.errors import Busy
from stages.core.host import fingerprint

CLIENTS, PAUSE_S, TIMEOUT_S = 4, 0.01, 1.0
QUIET_S = 5.0  # of correct predictions only, after which a fault counts as healed
LONGEST_S = 90.0
HEALED_S = 10.0  # the goal
DISK = "size=1g"
PAGE = workspace.ROOT / "docs" / "production.md"


@dataclass(frozen=True)
class Row:
    """What four clients saw of a fault. `heal_s`: from the first failed request until all are correct."""

    fault: str
    heal_s: float
    failed: int
    wrong: int
    standby: int  # correct predictions of another release than the live one
    requests: int


def main() -> list[dict[str, Any]]:
    """Cause all faults one after another, if possible on a disk that can be filled."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.faults", str(out), temporary]
        mounting = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        may_fill = (
            bool(shutil.which("unshare")) and not subprocess.run(mounting, capture_output=True, check=False).returncode
        )
        subprocess.run(
            ["unshare", "--mount", *command, "fill"] if may_fill else command, cwd=workspace.ROOT, check=True
        )
        rows = [Row(**row) for row in json.loads(out.read_text())]
    write(rows)
    wrong, requests = sum(row.wrong for row in rows), sum(row.requests for row in rows)
    slowest = max(rows, key=lambda row: row.heal_s)
    clients = f"{CLIENTS} clients, {len(rows)} faults"
    return [
        releases.result("wrong predictions while faults were healed", f"{wrong} of {requests:,}", "none", clients),
        releases.result(
            "the longest time until all predictions are correct again",
            f"{slowest.heal_s:.1f} s",
            f"at most {HEALED_S:g} s",
            slowest.fault,
        ),
    ]


def write(rows: list[Row]) -> None:
    """Write the table between the page's marks."""
    pause = f"each with a pause of {PAUSE_S * 1000:g} ms between its requests"
    lines = [
        f"{fingerprint()['cpu']}, {os.cpu_count()} cores; {CLIENTS} clients, {pause}.",
        "",
        "| fault | healed after | failed | wrong | by another release | of requests |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        counts = f"{row.failed:,} | {row.wrong:,} | {row.standby:,} | {row.requests:,}"
        lines.append(f"| {row.fault} | {row.heal_s:.1f} s | {counts} |")
    pages.write(PAGE, lines)


def measure(folder: Path, fill: bool) -> list[Row]:
    """Cause every fault in turn. `fill`: mount a file system at `folder`, and fill it."""
    folder.mkdir()
    if fill:
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", folder], check=True)
    project, store, first = releases.released(folder / "project")
    second, third = (releases.variant(first, folder / str(number), number) for number in (1, 2))
    releasing.release(project, store, second, keep=3)
    known = {release.manifest.id: release.golden for release in (first, second, third)}
    with kept_alive(project, second.manifest.id) as keeper, Clients(keeper.grpc, second, known) as clients:
        faults: list[tuple[str, Callable[[], object]]] = []
        for number in (signal.SIGKILL, signal.SIGSTOP):
            faults += [
                (f"{number.name} to the {who}", partial(keeper.send, number, who, store))
                for who in ("server", "encode", "network")
            ]
        faults.append(("SIGKILL to the supervisor", keeper.kill))
        faults.append((f"SIGSTOP to the supervisor for {QUIET_S:g} s", keeper.pause))
        if fill:
            for who in ("encode", "server"):
                kill = partial(keeper.send, signal.SIGKILL, who, store)
                faults.append((f"disk full, and SIGKILL to the {who}", partial(filled, folder / "filling", kill)))
        rows = [clients.during(fault, inflict) for fault, inflict in faults]
        (folder / "filling").unlink(missing_ok=True)
        rows.append(clients.during("a release and a rollback at once", partial(both, project, store, third)))
    return rows


class Keeper:
    """`millrace serve`, with a thread that restarts it."""

    def __init__(self, project: Path, release: str) -> None:
        self._project, self._release, self._ended = project, release, threading.Event()
        self._temporary = project.parent / "tmp"  # on the same disk
        self._temporary.mkdir()
        self._ports = free_ports(3)
        self.grpc = f"127.0.0.1:{self._ports[1]}"
        self._process = self._start()
        self._thread = threading.Thread(target=self._restart)
        self._thread.start()

    def send(self, number: signal.Signals, who: str, store: Store) -> None:
        """Send a signal to the server, or to a worker of the live release."""
        family = processes.family(self._process.pid)
        (name,) = store.names()
        deadline = time.monotonic() + LONGEST_S
        while store.current(name) != self._release and time.monotonic() < deadline:  # the previous release stands in
            time.sleep(0.1)
        model = f"{name}_{store.current(name)}_{who}"
        targets = processes.servers(family) if who == "server" else processes.workers(family, model)
        for process in targets:
            os.kill(process.pid, number)

    def kill(self) -> None:
        """Kill the supervisor itself."""
        self._process.kill()

    def pause(self) -> None:
        """Stop the supervisor for a while."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(QUIET_S)
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it."""
        self._ended.set()
        self._process.terminate()
        self._thread.join()

    def _start(self) -> subprocess.Popen[bytes]:
        options = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), self._ports, strict=True)]
        command = [sys.executable, "-m", "flows.cli", "serve", *options]
        environment = workspace.environment() | {"TMPDIR": str(self._temporary)}
        return subprocess.Popen(command, cwd=self._project, env=environment, stdout=sys.stderr)

    def _restart(self) -> None:
        while True:
            self._process.wait()
            if self._ended.wait(0.1):  # systemd's RestartSec
                return
            self._process = self._start()


@contextlib.contextmanager
def kept_alive(project: Path, release: str) -> Iterator[Keeper]:
    """Run a keeper for the duration of the block."""
    keeper = Keeper(project, release)
    try:
        yield keeper
    finally:
        keeper.end()


class Clients:
    """Clients in another process, and the outcomes of their requests."""

    def __init__(self, address: str, live: Candidate, known: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._release, self._stop, self._queue = live.manifest.id, context.Event(), context.SimpleQueue()
        arguments = (address, str(live.repository), live.names, known, self._stop, self._queue)
        self._process = context.Process(target=ask, args=arguments)
        self._answers: deque[Answer] = deque()
        self._reader = threading.Thread(target=self._collect)

    def __enter__(self) -> Clients:
        self._process.start()
        self._reader.start()
        self._until_quiet()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._reader.join()
        self._process.join()

    def during(self, fault: str, inflict: Callable[[], object]) -> Row:
        """Cause a fault, and wait until all predictions are correct again."""
        print(f"  {fault}", file=sys.stderr, flush=True)
        self._read()
        inflict()
        answers = self._until_quiet()
        failed = [answer for answer in answers if answer.outcome != "right"]
        last = max((answer.at for answer in failed), default=0.0)
        right = min((answer.at for answer in answers if answer.outcome == "right" and answer.at > last), default=last)
        return Row(
            fault=fault,
            heal_s=right - min(answer.at for answer in failed) if failed else 0.0,
            failed=sum(answer.outcome == "failed" for answer in answers),
            wrong=sum(answer.outcome == "wrong" for answer in answers),
            standby=sum(answer.outcome == "right" and answer.release != self._release for answer in answers),
            requests=len(answers),
        )

    def _until_quiet(self) -> list[Answer]:
        """Collect answers until all have been correct for QUIET_S."""
        answers: list[Answer] = []
        began = quiet = time.time()
        while time.time() - quiet < QUIET_S:
            if time.time() - began > LONGEST_S:
                raise SystemExit(f"not healed after {LONGEST_S:g} s")
            time.sleep(0.1)
            new = self._read()
            answers += new
            if not new or any(answer.outcome != "right" for answer in new):
                quiet = time.time()
        return answers

    def _read(self) -> list[Answer]:
        return [self._answers.popleft() for _ in range(len(self._answers))]

    def _collect(self) -> None:
        while (answer := self._queue.get()) is not None:
            self._answers.append(Answer(*answer))


@dataclass(frozen=True)
class Answer:
    """The answer to a request. `at`: its time. `outcome`: right, failed or wrong."""

    at: float
    outcome: str
    release: str


def ask(address: str, repository: str, names: Names, known: dict[str, Any], stop: Any, queue: Any) -> None:
    """Let each client send golden rows until `stop` is set; each outcome goes into `queue`."""
    schema, rows = golden(Path(repository), names)
    (output, *_) = schema.outputs()
    expected = {release: np.array(answers[output], np.float32) for release, answers in known.items()}
    count = len(next(iter(rows.values())))

    def work(first: int) -> None:
        with wire.connected(address) as client:
            index = first
            while not stop.is_set():
                index = (index + 1) % count
                row = {column: values[index : index + 1] for column, values in rows.items()}
                try:
                    answer = wire.ask(client, names.public, schema, row, timeout_s=TIMEOUT_S)
                except (InferenceServerException, OSError):
                    queue.put((time.time(), "failed", ""))
                else:
                    release = str(answer["release"][0])
                    right = release in expected and np.abs(answer[output][0] - expected[release][index]).max() < 1e-5
                    queue.put((time.time(), "right" if right else "wrong", release))
                time.sleep(PAUSE_S)

    clients = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    queue.put(None)


def free_ports(count: int) -> list[int]:
    """Find free ports; they are opened at the same time, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listening in sockets:
            listening.bind(("127.0.0.1", 0))
        return [int(listening.getsockname()[1]) for listening in sockets]


def filled(path: Path, inflict: Callable[[], object]) -> None:
    """Fill the disk, then cause a fault."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    inflict()


def both(project: Path, store: Store, candidate: Candidate) -> None:
    """Release and roll back at the same time; each retries while the store is busy."""

    def insist(act: Callable[[], object]) -> None:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            with contextlib.suppress(Busy):
                act()
                return
            time.sleep(0.05)
        raise SystemExit(f"the store is busy for {LONGEST_S:g} s")

    acts = (
        lambda: releasing.release(project, store, candidate, keep=3),
        lambda: returning.rollback(project, store, candidate.names.public, None),
    )
    at_once = [threading.Thread(target=insist, args=(act,)) for act in acts]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(
        json.dumps([asdict(each) for each in measure(Path(sys.argv[2]) / "disk", "fill" in sys.argv)])
    )
