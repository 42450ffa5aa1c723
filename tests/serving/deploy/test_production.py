"""The container, compose and Kubernetes files, compared with the launcher and the lock files."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from flows import cli
from serving.releases.store import Store
from serving.triton.launcher import Server, _command, find_server
from stages.core.errors import UserError
from tests.support.project import ROOT
from tests.support.releases import served

DEPLOY = ROOT / "serving/deploy"
NAME = "digits"
KEY_FILE = "/run/secrets/admin-key"
OLDEST = (26, 7)  # fixes CVE-2026-16497, the last that NVIDIA's bulletins name


COMPOSE = ("compose.yaml", "compose.tls.yaml")
VARIABLES = (
    *("MILLRACE_ADMIN_KEY_FILE", "MILLRACE_TLS_CERTIFICATE", "MILLRACE_TLS_KEY"),
    *("TRITON_DIGEST", "PROMETHEUS_DIGEST", "NGINX_DIGEST"),
)


def containerfile(name: str = "Containerfile") -> dict[str, str]:
    """Return the last of each instruction of a Containerfile."""
    return dict(re.findall(r"^([A-Z]+) (.+)$", (DEPLOY / name).read_text(), re.MULTILINE))


def compose() -> dict[str, Any]:
    return {
        name: service for file in COMPOSE for name, service in YAML(typ="safe").load(DEPLOY / file)["services"].items()
    }


def objects() -> dict[str, Any]:
    """Return the Kubernetes objects, by kind."""
    return {each["kind"]: each for each in YAML(typ="safe").load_all(DEPLOY / "kubernetes.yaml")}


def pod() -> dict[str, Any]:
    return objects()["Deployment"]["spec"]["template"]["spec"]


def triton() -> dict[str, Any]:
    (container,) = pod()["containers"]
    return container


def launched() -> set[str]:
    """Return the launcher's flags, without those that depend on the machine, such as ports and folders."""
    ports = {"http": 8000, "grpc": 8001, "metrics": 8002}
    with tempfile.TemporaryDirectory() as folder:
        command, _ = _command(Server(Path("tritonserver")), Path("/models"), [NAME], ports, Path(folder), 8)
    own = ("--id=", "--backend-", *(f"--{port}-{what}" for port in ports for what in ("address", "port")))
    return {
        re.sub("^--model-repository=.*", "--model-repository=/models", each)
        for each in command[1:]
        if not each.startswith(own)
    }


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_flags_are_those_of_the_launcher(where):
    given = compose()["triton"]["command"] if where == "compose" else triton()["args"]
    entry = json.loads(containerfile()["ENTRYPOINT"])
    assert entry[:6] == ["python3", "-I", "-S", "/opt/millrace/start.py", KEY_FILE, "tritonserver"]
    flags = [*entry[6:], *given]
    assert set(flags) == launched() and len(flags) == len(set(flags))


def test_the_ports_are_those_of_serve():
    options = inspect.signature(cli.serve).parameters
    ports = {name: options[f"{name}_port"].default for name in ("http", "grpc", "metrics")}
    assert {port["name"]: port["containerPort"] for port in triton()["ports"]} == ports
    service = {port["name"]: port["port"] for port in objects()["Service"]["spec"]["ports"]}
    assert service == {name: ports[name] for name in ("http", "grpc")}  # metrics are for the scraper alone
    bound = [f"127.0.0.1:{port}:{port}" for name, port in ports.items() if name != "metrics"]
    assert compose()["triton"]["ports"] == bound
    annotations = objects()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    text = YAML(typ="safe").load(DEPLOY / "compose.yaml")["configs"]["prometheus"]["content"]
    (job,) = YAML(typ="safe").load(text)["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"triton:{ports['metrics']}"]}]


def test_the_image_has_no_known_vulnerability():
    version = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-py3@\${DIGEST}", containerfile()["FROM"])
    assert version and tuple(map(int, version.groups())) >= OLDEST
    tag = f"{version[1]}.{version[2]}"
    assert compose()["triton"]["image"] == f"millrace-triton:{tag}"
    assert f"/millrace-triton:{tag}@" in triton()["image"]
    command = f"millrace-triton:{tag} --file serving/deploy/Containerfile serving/triton/runtime"
    assert command in (DEPLOY / "Containerfile").read_text()


def test_images_are_named_by_digest():
    """A digest must be looked up in the registry, and nothing is built or started without it."""
    for name in ("Containerfile", "release.Containerfile"):
        assert re.fullmatch(r"\S+:v?[\d.]+(-py3)?@\${DIGEST}", containerfile(name)["FROM"])
        assert containerfile(name)["ARG"] == "DIGEST"
    assert compose()["triton"]["build"]["args"] == {"DIGEST": "${TRITON_DIGEST:?}"}
    foreign = {name: each["image"] for name, each in compose().items() if "build" not in each}
    assert all(re.search(r":v?\d+[\d.]+@\${[A-Z]+_DIGEST:\?}$", image) for image in foreign.values()), foreign
    assert all(each["image"].endswith("@sha256:DIGEST") for each in (*pod()["containers"], *pod()["initContainers"]))


def test_probes_query_the_model():
    command = ["python3", "/opt/millrace/probe.py", NAME]
    assert compose()["triton"]["healthcheck"]["test"] == ["CMD", *command]
    probes = {name: probe for name, probe in triton().items() if name.endswith("Probe")}
    assert set(probes) == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert all(probe["exec"]["command"] == command for probe in probes.values())
    assert containerfile()["COPY"] == "start.py probe.py /opt/millrace/"
    assert set(pod()["containers"][0]["ports"][0]) == {"name", "containerPort"}


def test_nothing_runs_as_root_or_may_write():
    user = containerfile()["USER"]
    assert (
        compose()["proxy"]["user"]
        == user
        == containerfile("release.Containerfile")["USER"]
        == compose()["triton"]["user"]
    )
    number = int(user.partition(":")[0])
    assert number > 10000 and user == f"{number}:{number}"
    assert pod()["securityContext"] | {"runAsNonRoot": True, "runAsUser": number} == pod()["securityContext"]
    assert pod()["automountServiceAccountToken"] is False
    for container in (*pod()["containers"], *pod()["initContainers"]):
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount for mount in triton()["volumeMounts"]}
    assert mounts["/models"]["readOnly"] and {"/tmp", "/dev/shm"} <= set(mounts)
    for service in compose().values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    (volume,) = compose()["triton"]["volumes"]
    assert volume["target"] == "/models" and volume["read_only"]
    assert (DEPLOY / volume["source"]).resolve() == ROOT / "champion" / "repository"


def test_every_container_has_resource_limits():
    for container in (*pod()["containers"], *pod()["initContainers"]):
        for bounds in container["resources"].values():
            assert {"cpu", "memory"} <= set(bounds)
        assert set(container["resources"]) == {"requests", "limits"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod()["volumes"] if "secret" not in volume)
    assert {"mem_limit", "cpus", "pids_limit", "shm_size"} <= set(compose()["triton"])


def test_the_key_is_a_file_for_the_server_alone():
    folder, _, name = KEY_FILE.rpartition("/")
    (mount,) = (each for each in triton()["volumeMounts"] if each["mountPath"] == folder)
    (volume,) = (each for each in pod()["volumes"] if each["name"] == mount["name"])
    assert mount["readOnly"] and volume["secret"]["defaultMode"] == 0o400
    assert compose()["triton"]["secrets"] == [name] and "env" not in triton()
    secrets = YAML(typ="safe").load(DEPLOY / "compose.yaml")["secrets"]
    assert secrets == {name: {"file": "${MILLRACE_ADMIN_KEY_FILE:?}"}}


def test_the_network_policy_lets_nothing_out_and_only_named_callers_in():
    policy = objects()["NetworkPolicy"]["spec"]
    selected = objects()["Deployment"]["spec"]["selector"]
    assert policy["podSelector"] == selected and policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])
    assert objects()["Service"]["spec"]["selector"] == selected["matchLabels"]
    assert objects()["PodDisruptionBudget"]["spec"]["selector"] == selected


def test_the_page_names_existing_files_and_valid_commands():
    page = (ROOT / "docs" / "production.md").read_text()
    for name in re.findall(r"\]\((\S+?)\)", page):
        assert name.startswith("https://") or (ROOT / "docs" / name.partition("#")[0]).exists(), name
    for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    (secret,) = (volume["secret"]["secretName"] for volume in pod()["volumes"] if "secret" in volume)
    assert f"kubectl create secret generic {secret} --from-file={Path(KEY_FILE).name}=/dev/stdin" in page


def test_compose_accepts_the_files():
    commands = (["docker", "compose"], ["podman-compose"], ["docker-compose"])
    able = [each for each in commands if shutil.which(each[0]) and not _fails([*each, "version"])]
    if not able:
        pytest.skip("neither `docker compose` nor podman-compose is here")
    files = [option for file in COMPOSE for option in ("--file", str(DEPLOY / file))]
    subprocess.run([*able[0], *files, "config", "--quiet"], env=os.environ | dict.fromkeys(VARIABLES, "x"), check=True)


def test_the_page_names_every_variable_that_is_required():
    needed = {name for file in COMPOSE for name in re.findall(r"\${(\w+):\?}", (DEPLOY / file).read_text())}
    assert needed == set(VARIABLES)
    page = (ROOT / "docs" / "production.md").read_text()
    assert all(f"{name}=" in page for name in needed)


def test_kubernetes_accepts_the_deployment():
    """Kubernetes drops the fields that it does not know."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not here")
    command = ["kubectl", "set", "image", "--local", "--filename=-", "--output=json", "triton=another"]
    result = subprocess.run(
        command, input=json.dumps(objects()["Deployment"]), capture_output=True, text=True, check=True
    )
    lost = _lost(objects()["Deployment"], json.loads(result.stdout), "Deployment")
    assert lost == ["Deployment.spec.template.spec.containers[0].image"]


def _lost(written: Any, read: Any, path: str) -> list[str]:
    """List the paths whose written value differs from the value that was read."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [fault for key, value in written.items() for fault in _lost(value, read.get(key), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        pairs = zip(written, read, strict=True)
        return [fault for index, pair in enumerate(pairs) for fault in _lost(*pair, f"{path}[{index}]")]
    return [] if written == read else [path]


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.fixture(scope="module")
def server_or_skip() -> None:
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))


def probed(store: Store, address: str) -> subprocess.CompletedProcess[str]:
    probe = ROOT / "serving/triton/runtime/probe.py"
    command = [sys.executable, "-I", str(probe), NAME, str(store.repository), address]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hung"])
def test_the_probe_detects_a_dead_or_hung_worker(server_or_skip, after_two, end):
    from tritonclient.http import InferenceServerClient

    store = Store(after_two / "live")
    with served(store) as endpoint:
        assert probed(store, endpoint.http).returncode == 0
        family = psutil.Process(endpoint.process.pid).children(recursive=True)
        live = f"{store.current(NAME)}_encode"
        (stub,) = (each for each in family if "stub" in each.name() and live in " ".join(each.cmdline()))
        stub.send_signal(end)
        result = probed(store, endpoint.http)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
        with InferenceServerClient(endpoint.http) as client:
            assert client.is_server_ready() and client.is_model_ready(NAME)


def test_the_probe_detects_another_release(server_or_skip, after_two, candidates):
    store = Store(after_two / "live")
    with served(store) as endpoint:
        config = store.repository / NAME / "config.pbtxt"
        config.write_text(config.read_text().replace(candidates[1].manifest.id, candidates[0].manifest.id))
        result = probed(store, endpoint.http)
    assert result.returncode == 1
    assert result.stderr == f"{NAME} does not answer as release {candidates[0].manifest.id}\n"
    assert probed(store, endpoint.http).stderr.startswith("[Errno")


def test_the_page_names_existing_metrics(server_or_skip, after_two):
    named = set(re.findall(r"nv_\w+", (ROOT / "docs" / "production.md").read_text()))
    store = Store(after_two / "live")
    with served(store) as endpoint, urllib.request.urlopen(f"http://{endpoint.metrics}/metrics") as response:
        samples = re.findall(r'^(nv_\w+){model="(\w+)"', response.read().decode(), re.MULTILINE)
    assert len(named) > 5
    for model in (NAME, f"{NAME}_{store.current(NAME)}_network"):
        assert named - {metric for metric, of in samples if of == model} == set()


def test_the_network_meets_the_requirements_of_nvidias_image_client(server_or_skip, after_two, candidates):
    """It has one input of three fixed dims and a known format, and one vector of floats with a label for each class."""
    from tritonclient.grpc import InferenceServerClient, model_config_pb2

    store = Store(after_two / "live")
    with served(store) as endpoint, InferenceServerClient(endpoint.grpc) as client:
        network = candidates[1].names.network
        metadata, config = client.get_model_metadata(network), client.get_model_config(network).config
        ((image,), (output,)) = metadata.inputs, metadata.outputs
        assert image.datatype and len(image.shape) == 4 and min(image.shape[1:]) > 0
        formats = (model_config_pb2.ModelInput.FORMAT_NHWC, model_config_pb2.ModelInput.FORMAT_NCHW)
        assert config.input[0].format in formats and config.max_batch_size > 0
        assert output.datatype == "FP32" and len(output.shape) == 2
        labels = store.repository / network / config.output[0].label_filename
        assert len(labels.read_text().splitlines()) == output.shape[1]
