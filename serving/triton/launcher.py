"""Find a real tritonserver on this machine, and run it for as long as a block lasts."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

from serving.triton import loopback
from serving.triton.port_owner import listens_in
from serving.triton.scratch import Place, remove_regions, scratch, sweep
from serving.triton.wire import connected
from stages.core.errors import Late, UserError

PROJECT = Path(__file__).resolve().parents[2]
RUNS = ("serving/triton/backends/onnxruntime/model.py", "serving/triton/runtime/start.py")
COPIES = ("serving/triton/backends/python/batchstrategy.so",)
ADMIN_HEADER = "millrace-admin"  # of HTTP; gRPC's header is GRPC_PREFIX + ADMIN_HEADER
GRPC_PREFIX = "triton-grpc-protocol-"
_RESTRICTED = "model-repository,shared-memory,trace,logging"  # not model-config: NVIDIA's own image_client reads it
_NOISE = (  # errors of every start without a GPU, and one that another error repeats in more detail
    "CudaDriverHelper has not been initialized",
    "unable to create stream for ",
    "ERROR: Failed to create instance",
)
_POLL_S = 0.02
_START = Path(__file__).parent / "runtime" / "start.py"
_STARTS = 3  # attempts, where another process takes a free port before the server binds it


@dataclass(frozen=True)
class Server:
    """A tritonserver that can be started. `environment`: the nvidia-pytriton environment that contains it, if any."""

    binary: Path
    environment: Path | None = None


@dataclass(frozen=True)
class Endpoint:
    """A running server, with its addresses as HOST:PORT. `admin_key` opens the APIs that load models.

    `process` is the server's guard: it ends when the server does, with the same exit code, and passes SIGTERM on.
    """

    http: str
    grpc: str
    metrics: str
    process: subprocess.Popen[bytes]
    admin_key: str = field(repr=False)
    identity: str  # the name of the server's working directory, which no other server has

    @property
    def http_admin(self) -> dict[str, str]:
        """The headers that open the restricted APIs over HTTP."""
        return {ADMIN_HEADER: self.admin_key}

    @property
    def grpc_admin(self) -> dict[str, str]:
        """The headers that open the restricted APIs over gRPC."""
        return {GRPC_PREFIX + ADMIN_HEADER: self.admin_key}


class _PortTaken(Exception):
    """Another process has taken a port that was free."""


def find_server() -> Server:
    """Find the server to run.

    It is the one that MILLRACE_TRITON names, else `tritonserver` on PATH, else the one in the project's `.venv-triton`
    or in the `.venv-triton` next to this interpreter's environment.

    Raises:
        UserError: there is no server, or MILLRACE_TRITON does not name one.
    """
    named = os.environ.get("MILLRACE_TRITON")
    if named:
        server = _server_at(Path(named).expanduser())
        if server is None:
            fault = f"MILLRACE_TRITON={named} is neither a tritonserver nor an environment with nvidia-pytriton"
            raise UserError("triton-missing", f"{fault}: name one of these")
        return server
    on_path = shutil.which("tritonserver")
    folders = (PROJECT, Path(sys.prefix).parent)  # DVC's experiments copy the code elsewhere, not the environments
    places = [Path(on_path)] if on_path else [folder / ".venv-triton" for folder in folders]
    for place in places:
        if server := _server_at(place):
            return server
    raise UserError(
        "triton-missing",
        "no tritonserver: run `make setup` (Linux x86-64, glibc 2.35 or newer, Python 3.11 or 3.12 with its"
        " libpython), or set MILLRACE_TRITON=/path/to/tritonserver",
    )


@contextmanager
def running(
    repository: Path,
    models: Sequence[str],
    *,
    http_port: int | None = None,
    grpc_port: int | None = None,
    metrics_port: int | None = None,
    timeout_s: float = 60,
    log: Path | None = None,
    drain_s: int = 8,
    admin_key: str | None = None,
    place: Place | None = None,
) -> Iterator[Endpoint]:
    """Serve models on loopback while the block lasts. The models are ready when the block begins.

    The server ends with the thread that entered the block, however the thread ends.

    Args:
        repository: the model repository.
        models: the names of the models to load.
        http_port: a port; a free one is chosen for each that is not given.
        grpc_port: the same for gRPC.
        metrics_port: the same for the metrics.
        timeout_s: seconds in which the models must become ready.
        log: a file for the server's log; by default it is discarded with the server.
        drain_s: seconds that requests in flight have when the block ends. Leaving the block takes 3 s, or all of
            `drain_s` where an HTTP client is still connected; with 0 the server is killed at once.
        admin_key: the key of the administration; a new one by default.
        place: a `scratch` to use for several starts, one at a time. The later ones then need no room on the disk.

    Raises:
        UserError: there is no server, a given port is in use, or a model does not load within `timeout_s`.
    """
    server = find_server()
    if not repository.is_dir():
        raise UserError("triton-no-repository", f"{repository} does not exist: it should be a model repository")
    given = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
    for port in filter(None, given.values()):
        _require_free(port)
    sweep()
    with ExitStack() as stack:
        folder, lock = place or stack.enter_context(scratch())
        remove_regions(folder)
        for attempt in range(1, _STARTS + 1):
            ports = _with_free_ports(given)
            key = admin_key or secrets.token_hex(16)
            command, environment = _command(server, repository, models, ports, folder, drain_s)
            path = log or folder / "triton.log"
            with path.open("wb") as sink:
                process = _start(command, environment, key, folder, sink, lock)
            try:
                _wait_ready(process, ports, folder.name, models, timeout_s, path)
                break
            except _PortTaken as error:
                _stop(process, 0)
                if attempt == _STARTS or None not in given.values():
                    raise UserError("port-taken", f"a port was taken while the server started: {error}") from None
            except BaseException:
                _stop(process, 0)
                raise
        stack.callback(_stop, process, drain_s)
        http_address, grpc_address, metrics_address = (f"127.0.0.1:{ports[name]}" for name in given)
        yield Endpoint(http_address, grpc_address, metrics_address, process, key, folder.name)


def inference_count(endpoint: Endpoint, model: str) -> int:
    """Count the samples that a model has answered, all its versions together. It lags a moment behind the answers."""
    with connected(endpoint.grpc) as client:
        statistics = client.get_inference_statistics(model)
    return sum(int(version.inference_count) for version in statistics.model_stats)


def _server_at(path: Path) -> Server | None:
    """Return the server at `path`: a tritonserver binary, or a Python environment with nvidia-pytriton."""
    inside = "pytriton/tritonserver/bin/tritonserver"
    if path.is_dir():
        binaries = sorted(path.absolute().glob(f"lib/python3.*/site-packages/{inside}"))
        return Server(binaries[0], path.absolute()) if binaries else None
    if not (path.is_file() and os.access(path, os.X_OK)):
        return None
    binary = path.resolve()
    return Server(binary, binary.parents[6] if binary.as_posix().endswith(inside) else None)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                "port-taken",
                f"port {port} cannot be used ({error.strerror}): end the process that has it, or give another port",
            ) from None


def _with_free_ports(given: Mapping[str, int | None]) -> dict[str, int]:
    """Choose free ports for those that are not given. They are held open together, so that they differ."""
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name, port in given.items() if port is None}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probes[name].getsockname()[1] if port is None else port for name, port in given.items()}


def _command(
    server: Server,
    repository: Path,
    models: Sequence[str],
    ports: Mapping[str, int],
    folder: Path,
    drain_s: int,
) -> tuple[list[str], dict[str, str]]:
    """Return the command line, with `{key}` for the key, and the variables to add to the environment.

    All paths that Triton sees lie in `folder`, because it hands them to a shell.
    """
    restricted = f"{_RESTRICTED}:{ADMIN_HEADER}={{key}}"
    command = [
        str(server.binary),
        f"--model-repository={_link(folder / 'repository', repository.absolute())}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={drain_s}",
        f"--http-restricted-api={restricted}",
        f"--grpc-restricted-protocol={restricted}",
        f"--backend-config=python,shm-region-prefix-name={folder.name}",
    ]
    for name, port in ports.items():
        command += [f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    environment = {"TMPDIR": str(folder)}
    if server.environment is None:
        return command, environment
    python = _python(server.environment)
    backends = _backends(server, python["version"], folder)
    libraries = [
        # The interpreter's own folder first: the stub may otherwise load the system's libpython.
        str(_link(folder / "python", Path(python["libdir"]))) if python["libdir"] else "",
        str(_link(folder / "libraries", server.binary.parents[3] / "nvidia_pytriton.libs")),
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    # The stub finds its packages by the python3 that is first on PATH.
    programs = [str(_link(folder / "environment", server.environment) / "bin"), os.environ.get("PATH", os.defpath)]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    environment["PATH"] = os.pathsep.join(programs)
    return [*command, f"--backend-directory={backends}"], environment


def _link(place: Path, target: Path) -> Path:
    """Make `place` a link to `target`, and return it."""
    if not place.is_symlink():  # it is one at a second attempt
        place.symlink_to(target)
    return place


def _python(environment: Path) -> dict[str, str]:
    """Return the version ("3.11") and the library folder of an environment's interpreter."""
    code = (
        "import json, sys, sysconfig; print(json.dumps({'libdir': sysconfig.get_config_var('LIBDIR') or '',"
        " 'version': '%d.%d' % sys.version_info[:2]}))"
    )
    python = environment / "bin" / "python"
    try:
        described: dict[str, str] = json.loads(subprocess.check_output([python, "-I", "-c", code]))
    except (OSError, subprocess.CalledProcessError) as error:
        remedy = f"remove {environment} and run `make setup`"
        raise UserError("triton-broken-python", f"the server's Python does not run ({error}): {remedy}") from None
    return described


def _backends(server: Server, version: str, folder: Path) -> Path:
    """Collect Triton's Python backend, the stub for this Python, and our backends. Triton refuses links to them."""
    backends = folder / "backends"
    if backends.exists():  # at a second attempt
        return backends
    triton = server.binary.parents[1]
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        fault = f"nvidia-pytriton has no stub for Python {version} of {server.environment}"
        raise UserError("triton-other-python", f"{fault}: `make setup` with Python 3.11 or 3.12")
    project = Path(__file__).parent / "backends"
    shutil.copytree(triton / "backends" / "python", backends / "python", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(stub, backends / "python")
    shutil.copy2(project / "python" / "batchstrategy.so", backends / "python")  # for releases made before it existed
    (backends / "onnxruntime").mkdir()
    shutil.copy2(project / "onnxruntime" / "model.py", backends / "onnxruntime")
    return backends


def _start(
    command: list[str], environment: dict[str, str], key: str, folder: Path, sink: IO[bytes], lock: int
) -> subprocess.Popen[bytes]:
    """Start the server's guard in a session of its own, so that Ctrl-C does not reach it and its group can be killed.

    The variables are passed as arguments, because the guard itself must not load the server's libpython.
    """
    variables = [f"{name}={value}" for name, value in environment.items()]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", _START, f"--parent={os.getpid()}", "/dev/stdin", *variables, *command],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=sink,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(lock,),
    )
    assert process.stdin
    with suppress(BrokenPipeError), process.stdin:  # the log has the reason
        process.stdin.write(key.encode())
    return process


def _wait_ready(
    process: subprocess.Popen[bytes],
    ports: Mapping[str, int],
    identity: str,
    models: Sequence[str],
    timeout_s: float,
    log: Path,
) -> None:
    deadline = time.monotonic() + timeout_s
    while not _exited(process):
        if _is_ready(ports, identity, models):
            return
        if time.monotonic() > deadline:
            raise Late("triton-too-slow", f"tritonserver is not ready after {timeout_s:g} s: {_reason(log)}")
        time.sleep(_POLL_S)
    reason = _reason(log)
    if "already in use" in reason:
        raise _PortTaken(reason)
    raise UserError("triton-not-started", f"tritonserver did not start: {reason}")


def _is_ready(ports: Mapping[str, int], identity: str, models: Sequence[str]) -> bool:
    """Whether the models are ready on the server that we started; another server may listen on the port."""
    if not listens_in(ports["http"], identity):
        return False
    address = f"127.0.0.1:{ports['http']}"
    if any(loopback.get(address, f"/v2/models/{quote(model, safe='')}/ready", 1) is None for model in models):
        return False
    return b"nv_" in (loopback.get(f"127.0.0.1:{ports['metrics']}", "/metrics", 1) or b"")  # this port opens last


def _reason(log: Path) -> str:
    """Summarize the errors in the log: the causes, without the errors that follow from them."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [match.group(1) for line in lines if (match := re.match(r'E\d{4} .*?\] "?(.*?)"?$', line))]
    errors = [error for error in errors if not error.startswith(_NOISE)]
    causes = [error for error in errors if "Invalid argument: ensemble " not in error] or errors
    causes = causes or re.findall(r"^error: (.*)  \[[a-z-]+\]$", "\n".join(lines), re.MULTILINE) or lines[-5:]
    brief = [cause.partition(r"\n\nAt:")[0].strip(" ;") for cause in dict.fromkeys(causes)]
    return "; ".join(brief[-3:]) or "its log is empty"


def _exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended. It is not reaped, so that its id, which is its group's, cannot be reused yet."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _stop(process: subprocess.Popen[bytes], drain_s: int) -> None:
    """Send SIGTERM, and after `drain_s` SIGKILL to the rest of the process group."""
    deadline = time.monotonic() + (drain_s + 2 if drain_s else 0)
    if drain_s and not _exited(process):
        process.terminate()
    while not _exited(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 5
    while _has_members(process.pid) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _has_members(group: int) -> bool:
    """Whether any process of a group still runs. PID 1 may take some time to reap those that have ended."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, process_group = path.read_text().rpartition(")")[2].split()[:3]
            if process_group == str(group) and state not in "ZX":
                return True
    return False
