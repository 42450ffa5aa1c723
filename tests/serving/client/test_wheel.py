"""The client's wheel is built, installed without the project, used with a server, and checked by mypy."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from serving.client import Client, __version__
from serving.triton import manifest
from serving.triton.launcher import Endpoint, running
from tests.support.project import ROOT, Clone

pytestmark = pytest.mark.slow

DOCUMENT = (ROOT / "docs/client.md").read_text(encoding="utf-8")
OURS = {"serving", "stages", "flows", "benchmarks", "torch", "lightning", "dvc", "prefect", "pandas", "pyarrow"}


class Installed(NamedTuple):
    """An environment with the wheel and its dependencies, but without the project."""

    wheel: Path
    python: Path

    def run(self, code: str, folder: Path, *arguments: str) -> str:
        """Run a program in it, outside of the project, and return its output."""
        command = [self.python, "-I", "-c", code, *arguments]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build(folder / "dist")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    (packages,) = (folder / "venv/lib").glob("python3*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # not processed further: nothing of ours
    return Installed(wheel, python)


def build(folder: Path) -> Path:
    command = [sys.executable, "-m", "serving.client.wheel.build", folder]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Path(ran.stdout.strip())


@pytest.fixture(scope="module")
def served(a_server: None, finished: Clone) -> Iterator[Endpoint]:
    made = manifest.load(finished.folder / "models/manifest.json")
    models = [made.name, f"{made.name}_{made.id}"]
    with running(finished.folder / "models/repository", models, drain_s=0) as endpoint:
        yield endpoint


def test_equal_files_give_equal_bytes(installed: Installed, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.name == installed.wheel.name == f"millrace_client-{__version__}-py3-none-any.whl"
    first, second = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (installed.wheel, again))
    assert first == second


ASKING = """
import sys
import millrace_client
with millrace_client.Client(sys.argv[1], "digits") as client:
    answer = client.predict({"image": sys.argv[2]})
print(millrace_client.__version__, answer["label"], answer["release"])
print(*{module.partition(".")[0] for module in sys.modules})
"""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_wheel_works_without_the_project(
    installed: Installed, served: Endpoint, finished: Clone, tmp_path: Path, protocol: str
) -> None:
    picture = str(finished.folder / "data/builtin/digits/7/0007.png")
    address = f"{protocol}://{getattr(served, protocol)}"
    printed, modules = installed.run(ASKING, tmp_path, address, picture).splitlines()
    with Client(address, "digits") as client:
        answer = client.predict({"image": picture})
    assert printed.split() == [__version__, answer["label"], answer["release"]]
    assert OURS & set(modules.split()) == set()


def test_every_example_of_the_document_runs(installed: Installed, served: Endpoint, finished: Clone) -> None:
    blocks = re.findall(r"^<!-- test: (.+?) -->\n```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(blocks) == DOCUMENT.count("```") // 2
    ports = {"8000": served.http, "8001": served.grpc}
    for how, language, code in blocks:
        assert (how, language) == ("python", "python") or how.startswith("not here")
        if language == "python":
            for port, address in ports.items():
                code = code.replace(f"127.0.0.1:{port}", address)
            installed.run(code, finished.folder)


def test_a_table_without_pyarrow_is_a_clear_error(installed: Installed, served: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image\na.png\n")
    code = f"""
import sys
sys.modules["pyarrow"] = None
from millrace_client import Client
try:
    Client("{served.grpc}", "digits").predict("rows.csv")
except ImportError as error:
    print(error)
"""
    assert "pyarrow" in installed.run(code, tmp_path)


TYPED = """
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from millrace_client import Answer, AsyncClient, Client, Row, RowError

def rows() -> Iterator[Row]:
    yield {"rooms": 3}

async def rows_async() -> AsyncIterator[Row]:
    yield {"rooms": 3}

def token() -> str:
    return "t"

async def token_async() -> str:
    return "t"

with Client("a:1", "m", token=token, headers={"a": "b"}, certificate=("a", "b")) as client:
    assert_type(client.predict({"rooms": 3}), dict[str, Any])
    assert_type(client.predict([{"rooms": 3}], probabilities=True), list[Answer])
    assert_type(client.predict("rows.csv"), list[Answer])
    assert_type(client.predict(rows()), Iterator[Answer])
    client.predict(3)  # type: ignore[call-overload]
    Client("a:1", "m", retries=3)  # type: ignore[call-arg]
    Client("a:1", "m", token=token_async)  # type: ignore[arg-type]
    try:
        client.predict([])
    except RowError as error:
        assert_type(error.row, int | None)
        assert_type(error.column, str)

async def main() -> None:
    async with AsyncClient("a:1", "m", token=token_async) as client:
        assert_type(await client.predict({"rooms": 3}), Answer)
        assert_type(await client.predict([{"rooms": 3}]), list[Answer])
        async for answer in client.predict(rows_async()):
            assert_type(answer, Answer)
"""


def test_mypy_accepts_typed_callers(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python, "caller.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert ran.returncode == 0, ran.stdout
