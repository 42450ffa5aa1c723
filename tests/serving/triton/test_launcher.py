"""A real tritonserver is found, started, queried, stopped and killed."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest

from serving.client import AsyncClient, Client, ServerError
from serving.triton import launcher, scratch
from serving.triton.admin import is_server
from serving.triton.launcher import Endpoint, find_server, inference_count, running
from serving.triton.wire import channel_options, connected, is_loopback
from stages.core.children import child_environment
from stages.core.errors import UserError
from tests.support.toy_model import infer, write_model

pytestmark = pytest.mark.usefixtures("a_server")

grpc = pytest.importorskip("tritonclient.grpc")

MODELS = ("first", "second")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for seed, name in enumerate(MODELS):
        write_model(folder, name, seed)
    return folder


@pytest.fixture(scope="module")
def endpoint(repository: Path) -> Iterator[Endpoint]:
    with running(repository, MODELS, drain_s=0) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(endpoint.grpc) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rows", [1, 3])
def test_answers_equal_onnxruntime(client: grpc.InferenceServerClient, repository: Path, model: str, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx")
    np.testing.assert_allclose(infer(client, model, x), session.run(None, {"x": x})[0], rtol=1e-6)


def test_answered_samples_are_counted(endpoint: Endpoint, client: grpc.InferenceServerClient) -> None:
    before = [inference_count(endpoint, model) for model in MODELS]
    for rows in (1, 2, 5):
        infer(client, "first", np.zeros((rows, 4), np.float32))
    after, deadline = [before[0] + 8, before[1]], time.monotonic() + 10  # it counts a moment after it has answered
    while (counts := [inference_count(endpoint, model) for model in MODELS]) != after:
        assert time.monotonic() < deadline, counts


@pytest.mark.parametrize(
    "variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "grpc_proxy"]
)
def test_no_proxy_between_a_machine_and_itself(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with connected(endpoint.grpc) as client:
        assert client.is_model_ready("first")
    assert inference_count(endpoint, "first") >= 0
    for address in (endpoint.grpc, f"http://{endpoint.http}"):
        with Client(address, "first", retry_s=0) as client, pytest.raises(ServerError):  # it answers: none of ours
            client.describe()
        with pytest.raises(ServerError):
            asyncio.run(_describe(AsyncClient(address, "first", retry_s=0)))


@pytest.mark.parametrize(
    ("named", "hosts"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "example.org, localhost"}, "example.org,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_child_processes_use_no_proxy_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str], hosts: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert {child_environment()[name] for name in ("no_proxy", "NO_PROXY")} == {hosts}


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1:8001", True),
        ("127.9.9.9:8001", True),
        ("localhost:8001", True),
        ("[::1]:8001", True),
        ("10.0.0.1:8001", False),
        ("models.example.org:443", False),
        ("127.0.0.1.example.org:443", False),
    ],
)
def test_only_other_machines_are_reached_through_a_proxy(address: str, own: bool) -> None:
    assert is_loopback(address) is own
    assert (("grpc.enable_http_proxy", 0) in channel_options(address)) is own


def test_admin_apis_need_the_key(endpoint: Endpoint, client: grpc.InferenceServerClient) -> None:
    for path in ("repository/index", "repository/models/first/unload", "logging", "trace/setting"):
        assert _post(endpoint, path, {}) == 403
    assert _post(endpoint, "repository/index", endpoint.http_admin) == 200
    with pytest.raises(grpc.InferenceServerException, match="restricted"):
        client.get_model_repository_index()
    assert client.get_model_repository_index(headers=endpoint.grpc_admin).models
    assert client.get_model_config("first").config.name == "first"  # free: NVIDIA's image_client reads it


def test_a_server_is_recognized_by_its_process(endpoint: Endpoint, repository: Path) -> None:
    with grpc.InferenceServerClient(endpoint.grpc) as client:
        assert client.get_server_metadata().name == "triton"  # NVIDIA's examples fail for any other name
    with running(repository, ["first"], drain_s=0) as other:
        both = (endpoint, other)
        assert [[is_server(server.http, expected.identity) for expected in both] for server in both] == [
            [True, False],
            [False, True],
        ]
    assert not is_server(other.http, other.identity)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        assert not is_server(f"127.0.0.1:{stranger.getsockname()[1]}", endpoint.identity)


def test_the_server_listens_only_on_loopback(endpoint: Endpoint) -> None:
    connections = [c for process in _family(endpoint.process.pid) for c in process.net_connections("tcp")]
    listening = [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert {f"127.0.0.1:{address.port}" for address in listening} == {endpoint.http, endpoint.grpc, endpoint.metrics}


def test_a_drained_stop_leaves_nothing_behind(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    with running(repository, ["first"], log=log) as endpoint:
        family = _family(endpoint.process.pid)
        assert any(process.name() == "triton_python_backend_stub" for process in family) or not _is_pytriton()
        name = endpoint.identity
        with grpc.InferenceServerClient(endpoint.grpc) as client:
            infer(client, "first", np.zeros((1, 4), np.float32))
    assert endpoint.process.returncode == 0
    assert not _alive(family)
    assert not _leftovers(name)
    assert "Started GRPCInferenceService" in log.read_text(encoding="utf-8")


def test_an_immediate_stop_leaves_nothing_behind(repository: Path) -> None:
    with running(repository, ["first"], drain_s=0) as endpoint:
        family, name = _family(endpoint.process.pid), endpoint.identity
    assert not _alive(family)
    assert not _leftovers(name)


def test_an_exception_in_the_block_stops_the_server(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), running(repository, ["first"], drain_s=0) as endpoint:
        raise KeyboardInterrupt
    assert endpoint.process.returncode is not None


def test_the_server_and_its_workers_end_with_a_killed_parent(repository: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from serving.triton.launcher import running\n"
        f"with running(Path({str(repository)!r}), ['first']) as endpoint:\n"
        "    print(endpoint.process.pid, endpoint.identity, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=launcher.PROJECT)
    assert parent.stdout is not None
    pid, name = parent.stdout.readline().split()
    family = _family(int(pid))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    _until(lambda: not _alive(family), "server or stub lives on")
    assert not [entry for entry in os.listdir("/dev/shm") if name in entry]
    _until(lambda: not _swept(name), "the next start would not clear up")


def test_a_broken_onnx_file_is_reported(tmp_path: Path) -> None:
    write_model(tmp_path, "broken", 0)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(UserError, match=r"'broken' version 1: .*protobuf"), running(tmp_path, ["broken"], drain_s=0):
        pass


def test_an_absent_repository_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"), running(tmp_path / "nowhere", ["first"], drain_s=0):
        pass


def test_a_port_in_use_is_reported_before_the_start(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for argument in ("http_port", "grpc_port", "metrics_port"):
            with pytest.raises(UserError, match=f"port {port} .*another port"):
                running(repository, ["first"], **{argument: port}).__enter__()


@pytest.mark.parametrize("which", ["http", "metrics"])
def test_a_free_port_that_another_process_takes_is_replaced(
    repository: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        lost, tries, complete = taken.getsockname()[1], [], launcher._with_free_ports

        def lose_once(given: dict[str, int | None]) -> dict[str, int]:
            tries.append(complete(given) | ({} if tries else {which: lost}))
            return tries[-1]

        monkeypatch.setattr(launcher, "_with_free_ports", lose_once)
        with running(repository, ["first"], drain_s=0) as endpoint:
            assert getattr(endpoint, which) != f"127.0.0.1:{lost}"
    assert len(tries) == 2


def test_a_missing_server_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLRACE_TRITON", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="gone is neither a tritonserver"):
        find_server()
    monkeypatch.delenv("MILLRACE_TRITON")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(launcher, "PROJECT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    with pytest.raises(UserError, match=r"make setup.*MILLRACE_TRITON="):
        find_server()


async def _describe(client: AsyncClient) -> None:
    async with client:
        await client.describe()


def _post(endpoint: Endpoint, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(endpoint.http, timeout=10)
    try:
        connection.request("POST", f"/v2/{path}", body="{}", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _leftovers(name: str) -> list[str]:
    return [entry for folder in ("/dev/shm", tempfile.gettempdir()) for entry in os.listdir(folder) if name in entry]


def _swept(name: str) -> list[str]:
    """Return what the next start would leave behind. Threads may hold the lock a moment longer than the process."""
    scratch.sweep()
    return _leftovers(name)


def _family(pid: int) -> list[psutil.Process]:
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


def _alive(family: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _is_pytriton() -> bool:
    return find_server().environment is not None


def _until(condition: Callable[[], bool], complaint: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)
