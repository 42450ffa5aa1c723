"""The production files, checked with their schemas, a real proxy and a real server's metrics."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest
from ruamel.yaml import YAML

from serving.triton.launcher import Endpoint, running
from tests.support.project import ROOT
from tests.support.toy_model import infer, write_model

DEPLOY = ROOT / "serving/deploy"
SCHEMAS = ROOT / "tests/support/schemas"
COMPOSE = ("compose.yaml", "compose.tls.yaml")


def read(name: str) -> list[Any]:
    """Read the documents of a YAML file."""
    return list(YAML(typ="safe").load_all(DEPLOY / name))


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / name).read_text())


def compose_faults(document: Any) -> list[str]:
    return [error.json_path for error in jsonschema.Draft7Validator(schema("compose.json")).iter_errors(document)]


def kubernetes_faults(document: Any) -> list[str]:
    every = schema("kubernetes.json")
    validator = jsonschema.Draft202012Validator({**every["kinds"][document["kind"]], "$defs": every["$defs"]})
    return [error.json_path for error in validator.iter_errors(document)]


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_match_their_schema(name):
    (document,) = read(name)
    assert compose_faults(document) == []
    service = next(iter(document["services"].values()))
    service["read_olny"] = True
    assert len(compose_faults(document)) == 1


def test_kubernetes_objects_match_their_schemas():
    documents = read("kubernetes.yaml")
    assert len(documents) == 4
    for document in documents:
        assert kubernetes_faults(document) == []
        document["spec"]["replicaz"] = 2
        assert len(kubernetes_faults(document)) == 1
    pod = documents[0]["spec"]["template"]["spec"]
    pod["containers"][0]["readinessProbe"]["periodSeconds"] = "5"
    assert any(path.endswith("readinessProbe.periodSeconds") for path in kubernetes_faults(documents[0]))


@pytest.fixture(scope="module")
def endpoint(a_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("repository")
    write_model(folder, "digits", 0)
    with running(folder, ["digits"], drain_s=0) as endpoint:
        import tritonclient.grpc

        with tritonclient.grpc.InferenceServerClient(endpoint.grpc) as client:
            infer(client, "digits", np.zeros((1, 4), np.float32))
        yield endpoint


def alerts() -> list[dict[str, Any]]:
    (document,) = read("alerts.yaml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_alerts_use_existing_metrics(endpoint):
    with urllib.request.urlopen(f"http://{endpoint.metrics}/metrics") as response:
        text = response.read().decode()
    exposed = dict(re.findall(r"^(nv_\w+){(.*?)}", text, re.MULTILINE))
    for rule in alerts():
        named = re.findall(r"(nv_\w+)(?:{(\w+))?", rule["expr"])
        assert named, rule["alert"]
        for metric, label in named:
            assert metric in exposed, (rule["alert"], metric)
            assert not label or f'{label}="' in exposed[metric], (rule["alert"], metric, label)


def test_alerts_have_a_severity_and_a_duration():
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 3
    for rule in alerts():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]
    (compose,) = read("compose.yaml")
    target = {each["source"]: each["target"] for each in compose["services"]["prometheus"]["configs"]}["alerts"]
    config = YAML(typ="safe").load(compose["configs"]["prometheus"]["content"])
    assert config["rule_files"] == [target] and (DEPLOY / compose["configs"]["alerts"]["file"]).is_file()


def test_prometheus_accepts_the_alerts():
    if not shutil.which("promtool"):
        pytest.skip("promtool is not here")
    subprocess.run(["promtool", "check", "rules", str(DEPLOY / "alerts.yaml")], check=True, capture_output=True)


class Proxy(NamedTuple):
    """The proxy's addresses as HOST:PORT, and its certificate."""

    http: str
    grpc: str
    certificate: Path


@pytest.fixture(scope="module")
def proxy(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Run nginx with the project's file, in which this machine's addresses replace the container's."""
    folder = tmp_path_factory.mktemp("proxy")
    for program in ("nginx", "openssl"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not here")
    made = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    keys = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(["openssl", *made.split(), *keys], check=True, capture_output=True)
    ports = free_ports(2)
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in {
        "triton:8000": endpoint.http,
        "triton:8001": endpoint.grpc,
        "listen 8443": f"listen 127.0.0.1:{ports[0]}",
        "listen 8444": f"listen 127.0.0.1:{ports[1]}",
        "/tmp/": f"{folder}/",  # first: the folder's own name may begin so
        "/run/secrets": str(folder),
        "/dev/stdout": str(folder / "access.log"),
        "/dev/stderr": str(folder / "error.log"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    with nginx(folder, ports):
        yield Proxy(f"localhost:{ports[0]}", f"localhost:{ports[1]}", folder / "tls.crt")


@contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[None]:
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-g", "daemon off; user root;"]
    process = subprocess.Popen(command if os.getuid() == 0 else [*command[:-1], "daemon off;"])
    try:
        deadline = time.monotonic() + 30
        while not all(listens(port) for port in ports):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def status(proxy: Proxy, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    import ssl

    context = ssl.create_default_context(cafile=proxy.certificate)
    request = urllib.request.Request(f"https://{proxy.http}{path}", body, headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_proxy_answers_callers_through_tls(proxy):
    import tritonclient.grpc

    assert status(proxy, "/v2/models/digits/ready") == status(proxy, "/v2/models/digits/config") == 200
    row = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.0] * 4}
    assert status(proxy, "/v2/models/digits/infer", json.dumps({"inputs": [row]}).encode()) == 200
    secure = {"ssl": True, "root_certificates": str(proxy.certificate)}
    with tritonclient.grpc.InferenceServerClient(proxy.grpc, **secure) as client:
        assert client.is_model_ready("digits")
        assert infer(client, "digits", np.zeros((1, 4), np.float32)).shape == (1, 3)


def test_the_proxy_rejects_compressed_requests(proxy):
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    assert status(proxy, "/v2/models/digits/infer", b"{}", {"Content-Encoding": "gzip"}) == 415
    row = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
    row.set_data_from_numpy(np.zeros((1, 4), np.float32))
    secure = {"ssl": True, "root_certificates": str(proxy.certificate)}
    with tritonclient.grpc.InferenceServerClient(proxy.grpc, **secure) as client:
        client.infer("digits", [row])
        with pytest.raises(InferenceServerException, match="415"):
            client.infer("digits", [row], compression_algorithm="gzip")


@pytest.mark.parametrize("path", ["repository/index", "repository/models/digits/load", "logging", "trace/setting"])
def test_the_proxy_blocks_the_administration_even_with_the_key(proxy, endpoint, path):
    assert status(proxy, f"/v2/{path}", b"{}", endpoint.http_admin) == 403


def test_the_proxy_blocks_the_administration_by_grpc(proxy, endpoint):
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    secure = {"ssl": True, "root_certificates": str(proxy.certificate)}
    with tritonclient.grpc.InferenceServerClient(proxy.grpc, **secure) as client:
        for call in (client.get_model_repository_index, client.get_log_settings):
            with pytest.raises(InferenceServerException):
                call(headers=endpoint.grpc_admin)
