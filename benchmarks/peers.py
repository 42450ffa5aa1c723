"""The served model compared with FastAPI, LitServe and onnxruntime in process: same network, machine and run.

wrk sends the same requests to all of them over persistent HTTP connections: to the network alone (array in, array out),
and with a PNG for class and probabilities. The table for all connections goes to docs/serving-speed.md.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http

from benchmarks import pages, workspace
from serving.releases import release as releases
from serving.releases import supervisor
from serving.releases.candidate import Candidate, exported
from serving.releases.ledger import Journal
from serving.releases.store import Store
from serving.triton.admin import administered, announcement
from serving.triton.launcher import Endpoint, running
from serving.triton.repository import golden
from stages.core.children import Children
from stages.core.host import fingerprint
from stages.settings import params

CONNECTIONS, COMPARED = (1, 8, 32, 128), 32
ROUNDS, ROUND_S, PROBED_S = 4, 1, 3
SEARCHED = 3  # rounds to find the best settings of each peer
HERE = Path(__file__).resolve().parent
PAGE = workspace.ROOT / "docs" / "serving-speed.md"
CORES = os.cpu_count() or 1
FASTAPI = [  # an `async` endpoint runs on the event loop, a plain one in FastAPI's thread pool
    {"workers": 1, "threads": CORES, "threadpool": False},
    {"workers": CORES, "threads": 1, "threadpool": False},
    {"workers": CORES, "threads": 1, "threadpool": True},
]
LITSERVE = [
    {"workers": 1, "api_servers": CORES, "threads": 1, "wait_ms": 0},
    {"workers": 1, "api_servers": CORES, "threads": 1, "wait_ms": 1},
    {"workers": CORES, "api_servers": CORES, "threads": 1, "wait_ms": 1},
]


@dataclass(frozen=True)
class Target:
    """A request: `body` is posted to `url`; `read` extracts the probabilities from the response's body and header."""

    url: str
    body: bytes
    read: Callable[[bytes, int], np.ndarray]
    header_length: int = 0  # of Triton's JSON before the tensors


@dataclass(frozen=True)
class Figures:
    """The results of one server at one number of connections: a value for each round."""

    requests_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def add(self, measured: Mapping[str, float]) -> None:
        """Add a round's figures."""
        for name, values in vars(self).items():
            values.append(measured[name])


@dataclass(frozen=True)
class Tools:
    """wrk, the Python of the peers' environment, and the release that all servers serve."""

    wrk: list[str]
    python: Path
    work: Path
    release: Candidate
    children: Children

    def peer(self, kind: str, settings: Mapping[str, Any]) -> list[str]:
        """The command that starts a peer."""
        names = self.release.names
        environment = ["env", f"PYTHONPATH={workspace.ROOT}", "PYTHONDONTWRITEBYTECODE=1"]
        what = [kind, str(self.release.repository), names.candidate, json.dumps(settings)]
        return [*environment, str(self.python), str(HERE / "peer_servers.py"), *what]

    def ask(self, target: Target, connections: int, seconds: int = ROUND_S) -> dict[str, float]:
        """Run wrk and return its results.

        Raises:
            SystemExit: a request failed.
        """
        body = self.work / "body"
        body.write_bytes(target.body)
        command = [*self.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        environment = os.environ | {"BODY": str(body), "HEADER_LENGTH": str(target.header_length)}
        done = subprocess.run(
            [*command, "-s", str(HERE / "peers.lua"), target.url],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
        measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        if measured["failed"] or not measured["requests_per_s"]:
            raise SystemExit(f"{target.url} failed {measured['failed']} requests of {connections} connections")
        return measured

    def in_process(self, path: str, body: bytes, callers: int) -> dict[str, float]:
        """The same with threads that call onnxruntime in their own process."""
        file = self.work / "body"
        file.write_bytes(body)
        settings = {"path": path, "body": str(file), "callers": callers, "threads": 1, "seconds": ROUND_S}
        done = subprocess.run(self.peer("inprocess", settings), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"in process: {done.stderr}")
        measured: dict[str, float] = json.loads(done.stdout)
        return measured


def main() -> list[dict[str, Any]]:
    """The network, images, and the cost of the supervisor's probe."""
    with tempfile.TemporaryDirectory() as temporary, Children() as children:
        work = Path(temporary)
        wrk, python = load_generator(work / "wrk"), environment(work / "venv")
        folder = workspace.init(workspace.project(work / "project"))
        workspace.timed(folder, "dvc", "repro", "--quiet")
        candidate = exported({name: folder / path for name, path in params.paths(folder / "dvc.yaml").items()})
        store = Store(folder / "live")
        releases.release(folder, store, candidate, keep=3)
        tools = Tools(wrk, python, work, candidate, children)
        names = candidate.names
        models = [names.public, names.candidate, names.network]
        with running(store.repository, models, admin_key=store.key, drain_s=0) as endpoint:
            store.announce(announcement(endpoint, os.getpid()))
            contests = {path: contest(tools, path, endpoint) for path in ("/network", "/picture")}
            probe = probe_cost(tools, triton(tools.release, "/picture", endpoint), folder, store, endpoint)
    write(contests)
    return [
        judged("the network alone: requests/s", contests["/network"], 3.0, 0.5),
        judged("images: requests/s of PNGs", contests["/picture"], 1.5, None),
        probe,
    ]


def load_generator(folder: Path) -> list[str]:
    """The command of wrk: the installed one, else Debian's or Ubuntu's package unpacked in `folder`.

    Raises:
        SystemExit: neither is available.
    """
    if installed := shutil.which("wrk"):
        return [installed]
    folder.mkdir()
    try:
        for package in ("wrk", "libluajit-5.1-2"):
            workspace.timed(folder, "apt-get", "download", package)
        for file in sorted(folder.glob("*.deb")):
            workspace.timed(folder, "dpkg-deb", "--extract", file, "root")
    except OSError as error:
        raise SystemExit(f"no wrk, and no apt-get to fetch it with ({error}): install github.com/wg/wrk") from None
    libraries = {str(path.parent) for path in folder.glob("root/usr/lib/**/libluajit*")}
    return ["env", f"LD_LIBRARY_PATH={':'.join(sorted(libraries))}", str(folder / "root" / "usr" / "bin" / "wrk")]


def environment(folder: Path) -> Path:
    """The Python of a new environment with the packages of benchmarks/peers.txt."""
    workspace.timed(HERE, sys.executable, "-m", "venv", folder)
    install = (folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
    workspace.timed(HERE, *install, "--requirement", HERE / "peers.txt")
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Contest:
    """The results for one path, and the best settings of each peer."""

    figures: dict[str, dict[int, Figures]]  # by server and connections
    settings: dict[str, dict[str, Any]]

    def best_peer(self) -> str:
        """The name of the fastest peer."""
        return max(self.settings, key=lambda name: statistics.median(self.figures[name][COMPARED].requests_per_s))


def contest(tools: Tools, path: str, endpoint: Endpoint) -> Contest:
    """Measure every server at every number of connections, in turn in each round."""
    ours = triton(tools.release, path, endpoint)
    expected, body = answer(ours), array(tools.release) if path == "/network" else picture(tools.release)
    settings = {
        "FastAPI": best(tools, "fastapi", FASTAPI, path, body),
        "LitServe": best(tools, "litserve", [{**each, "path": path} for each in LITSERVE], path, body),
    }
    with ExitStack() as stack:
        targets = {"millrace": ours}
        for name, chosen in settings.items():
            targets[name] = stack.enter_context(serving(tools, name.lower(), chosen, path, body))
            if np.abs(answer(targets[name]) - expected).max() > 1e-5:
                raise SystemExit(f"{name} predicts {path} differently from Triton")
        figures = {name: {count: Figures() for count in CONNECTIONS} for name in (*targets, "in process")}
        for target in targets.values():
            tools.ask(target, COMPARED)
        for _ in range(ROUNDS):
            for count in CONNECTIONS:
                for name, target in targets.items():
                    figures[name][count].add(tools.ask(target, count))
        for count in CONNECTIONS:
            figures["in process"][count].add(tools.in_process(path, body, count))
    return Contest(figures, settings)


def triton(release: Candidate, path: str, endpoint: Endpoint) -> Target:
    """A request of binary tensors over HTTP: an array for the network, an image for the ensemble."""
    names, schema = release.names, golden(release.repository, release.names)[0]
    (block,), (column,) = schema.blocks(), schema.inputs()
    if path == "/network":
        value = np.frombuffer(array(release), block.tensor.dtype).reshape(1, *block.tensor.shape)
        tensor = tritonclient.http.InferInput(block.name, value.shape, block.tensor.dtype.upper())
        wanted = [tritonclient.http.InferRequestedOutput("probabilities")]
        model = names.network
    else:
        value = np.array([[picture(release)]], np.object_)
        tensor = tritonclient.http.InferInput(column, value.shape, "BYTES")
        classes = len(schema.outputs()["probabilities"].labels)
        wanted = [tritonclient.http.InferRequestedOutput("probabilities", class_count=classes)]
        model = names.public
    tensor.set_data_from_numpy(value)
    client = tritonclient.http.InferenceServerClient
    body, header_length = client.generate_request_body([tensor], outputs=wanted)

    def read(content: bytes, header_length: int) -> np.ndarray:
        found = client.parse_response_body(content, header_length=header_length).as_numpy("probabilities")[0]
        if path == "/network":
            return found
        classes_read = [each.decode().split(":") for each in found.tolist()]
        return np.array([float(share) for share, _, _ in sorted(classes_read, key=lambda each: int(each[1]))])

    return Target(f"http://{endpoint.http}/v2/models/{model}/infer", body, read, header_length)


def picture(release: Candidate) -> bytes:
    """The image of a golden row."""
    schema, rows = golden(release.repository, release.names)
    (column,) = schema.inputs()
    return bytes(rows[column][0])


def array(release: Candidate) -> bytes:
    """The array of the same row."""
    schema, rows = golden(release.repository, release.names)
    ((_, encoded),) = schema.encode({name: values[:1] for name, values in rows.items()}).items()
    return bytes(encoded.tobytes())


def best(tools: Tools, kind: str, settings: list[dict[str, Any]], path: str, body: bytes) -> dict[str, Any]:
    """The `settings` with the highest throughput of a peer, in the best of several rounds."""
    with ExitStack() as stack:
        targets = [stack.enter_context(serving(tools, kind, each, path, body)) for each in settings]
        rates = [[tools.ask(target, COMPARED)["requests_per_s"] for target in targets] for _ in range(SEARCHED)]
    most = np.max(rates[1:], axis=0)  # the first round warms up
    return settings[int(most.argmax())]


@contextmanager
def serving(tools: Tools, kind: str, settings: Mapping[str, Any], path: str, body: bytes) -> Iterator[Target]:
    """Run a peer for the duration of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def read(content: bytes, _: int) -> np.ndarray:
        return (
            np.frombuffer(content, np.float32) if path == "/network" else np.array(json.loads(content)["probabilities"])
        )

    target = Target(f"http://127.0.0.1:{port}{path}", body, read)
    with tools.children.start(tools.peer(kind, {**settings, "port": port}), how="end") as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer(target)
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    raise SystemExit(f"{kind} ended: {process.stdout and process.stdout.read()}") from None
                if time.monotonic() > deadline:
                    raise SystemExit(f"{kind} does not answer") from None
                time.sleep(0.1)
        yield target


def answer(target: Target) -> np.ndarray:
    """Send one request and return its probabilities [C]."""
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(target.header_length)}
    with urllib.request.urlopen(urllib.request.Request(target.url, target.body, headers), timeout=10) as response:
        return target.read(response.read(), int(response.headers.get("Inference-Header-Content-Length", 0)))


def probe_cost(tools: Tools, target: Target, folder: Path, store: Store, endpoint: Endpoint) -> dict[str, Any]:
    """Throughput at 8 connections while the supervisor probes every second, relative to without it."""
    ratios, figures = [], {True: Figures(), False: Figures()}
    for _ in range(ROUNDS):
        with watched(folder, store, endpoint):
            figures[True].add(tools.ask(target, 8, PROBED_S))
        figures[False].add(tools.ask(target, 8, PROBED_S))
        ratios.append(figures[True].requests_per_s[-1] / figures[False].requests_per_s[-1])
    with_it, without = (statistics.median(figures[probed].requests_per_s) for probed in (True, False))
    return {
        "what": "the supervisor's probe every second: requests/s of images with it, relative to without",
        "figure": f"{statistics.median(ratios):.2f}",
        "goal": "no goal",
        "with": f"8 connections, {with_it:,.0f}/s against {without:,.0f}/s",
    }


@contextmanager
def watched(folder: Path, store: Store, endpoint: Endpoint) -> Iterator[None]:
    """Let the supervisor probe the server every second, as in `millrace serve`."""
    settings, stop, repairs = params.parse(folder / "params.yaml").serve, threading.Event(), []
    with administered(endpoint.grpc, endpoint.admin_key) as admin:
        journal = Journal(store.ledger, repairs.append)
        watch = supervisor.Watch(folder, store, endpoint, admin, journal, repairs.append, settings.probe_timeout_s)
        watcher = threading.Thread(target=watch.until, args=(stop, settings.probe_s))
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
    if repairs:
        raise SystemExit(f"the supervisor had to heal: {repairs}")


def judged(what: str, found: Contest, times: float, share_of_p99: float | None) -> dict[str, Any]:
    """Our results relative to the best HTTP peer's, as the median of the rounds' ratios."""
    peer = found.best_peer()
    ours, theirs = found.figures["millrace"][COMPARED], found.figures[peer][COMPARED]
    faster, p99 = (
        statistics.median(a / b for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True))
        for name in ("requests_per_s", "p99_ms")
    )
    return {
        "what": f"{what} relative to the best HTTP peer, and the same of p99",
        "figure": f"{faster:.2f}, {p99:.2f}",
        "goal": f"at least {times:g}" + (f", at most {share_of_p99:g}" if share_of_p99 else ""),
        "with": f"{COMPARED} connections, {peer} with {described(found.settings[peer])}; "
        "wrk; our ONNX backend in Python",
    }


def described(settings: Mapping[str, Any]) -> str:
    """A peer's settings in words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if name != "path")


def write(contests: Mapping[str, Contest]) -> None:
    """Write all results into the page, between its marks."""
    lines = [f"{fingerprint()['cpu']}, {CORES} cores; requests/s, and p50 / p99 in ms: medians of {ROUNDS} rounds."]
    for path, what in (("/network", "The network alone"), ("/picture", "Images")):
        found = contests[path]
        lines += ["", f"**{what}**", "", "| connections | " + " | ".join(found.figures) + " |"]
        lines.append("|---:" * (len(found.figures) + 1) + "|")
        for count in CONNECTIONS:
            cells = []
            for by_count in found.figures.values():
                rate, p50, p99 = (statistics.median(values) for values in vars(by_count[count]).values())
                cells.append(f"{rate:,.0f}, {p50:.1f} / {p99:.1f}")
            lines.append(f"| {count} | " + " | ".join(cells) + " |")
        best = "; ".join(f"{name}: {described(settings)}" for name, settings in found.settings.items())
        lines += ["", f"Best settings: {best}."]
    pages.write(PAGE, lines)


if __name__ == "__main__":
    for each in main():
        print(json.dumps(each))
