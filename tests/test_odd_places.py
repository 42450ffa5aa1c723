"""A project and a TMPDIR whose paths a shell misreads, or where programs may not run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from serving.triton import scratch
from serving.triton.launcher import find_server, running
from serving.triton.wire import connected
from stages.core.children import child_environment
from stages.core.errors import UserError
from tests.support.failing import failing
from tests.support.project import ROOT
from tests.support.toy_model import infer, write_model

ODD = """a b$(touch pwned)`touch pwned`;touch pwned&|<>'"()[]{key}*?#~!\\:ü\nc"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with such a name, which is also TMPDIR."""
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_folder_name_is_never_run_as_code(a_server, odd, monkeypatch):
    repository, server = odd / "repository", find_server()
    write_model(repository, "first", 0)
    if server.environment:
        (odd / "environment").symlink_to(server.environment)
        monkeypatch.setenv("MILLRACE_TRITON", str(odd / "environment"))
    with running(repository, ["first"], drain_s=0) as endpoint, connected(endpoint.grpc) as client:
        before = infer(client, "first", np.ones((1, 4), np.float32))
        (odd / "next").mkdir()
        write_model(odd / "next", "first", 1)
        (repository / "first" / "1").rename(odd / "last")
        (odd / "next" / "first" / "1").rename(repository / "first" / "1")
        client.load_model("first", headers=endpoint.grpc_admin)
        assert (infer(client, "first", np.ones((1, 4), np.float32)) != before).any()
        looked = [odd, Path.cwd(), Path(f"/proc/{endpoint.process.pid}/cwd").resolve()]
        assert not [folder for folder in looked if (folder / "pwned").exists()]


def test_the_command_runs_in_a_folder_of_any_name_and_after_a_move(odd):
    for name in ("flows", "stages", "serving"):
        shutil.copytree(ROOT / name, odd / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment, own = Path(sys.prefix), odd / ".venv"
    (own / "bin").mkdir(parents=True)
    (own / "bin/python").symlink_to(sys.executable)
    (own / "lib").symlink_to(environment / "lib")
    shutil.copy(environment / "pyvenv.cfg", own)
    shutil.copy(odd / "flows/entry/millrace.sh", own / "bin/millrace")
    (own / "bin/millrace").chmod(0o755)
    for folder in (odd, odd.with_name("moved 'elsewhere\"")):
        odd.rename(folder)
        result = subprocess.run([folder / ".venv/bin/millrace", "--help"], cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0 and "rollback" in result.stdout, result.stderr
        assert not (folder / "pwned").exists()


def mounted(folder: Path, options: str, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new mount namespace, in which `folder` is another file system."""
    mount = f"mount --types tmpfs --options {options} tmpfs {folder} || exit 99; exec {sys.executable} -c '{code}'"
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if os.getuid() != 0 or result.returncode == 99 or result.stderr.startswith("unshare: "):
        pytest.skip("nothing can be mounted here")
    return result


SERVE = (
    "import sys; from pathlib import Path; from serving.triton.launcher import running\n"
    'with running(Path("REPOSITORY"), ["first"], drain_s=0) as endpoint: print(endpoint.identity)'
)


def test_a_noexec_tmpdir_is_not_used(a_server, tmp_path):
    repository, mine = tmp_path / "repository", tmp_path / "mine"
    write_model(repository, "first", 0)
    mine.mkdir()
    result = mounted(mine, "noexec", SERVE.replace("REPOSITORY", str(repository)), TMPDIR=str(mine))
    assert result.returncode == 0 and result.stdout.startswith("millrace-triton-"), result.stderr


def test_an_error_lists_the_folders_that_are_not_fit(monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "_candidates", lambda: [tmp_path / ODD, tmp_path / "absent", Path("/proc")])
    with failing(UserError, "triton-no-scratch", "TMPDIR", str(tmp_path / "absent")):
        scratch.base()


def test_a_colon_in_the_environments_path_is_rejected(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/a:b/.venv/bin/python")
    with failing(UserError, "project-colon-in-path", "/home/a:b/"):
        child_environment()


def test_a_run_without_a_fit_folder_does_not_start(monkeypatch, tmp_path, empty):
    from flows import cli

    monkeypatch.chdir(empty)
    monkeypatch.setattr(scratch, "_candidates", lambda: [tmp_path / "absent"])
    monkeypatch.setattr(cli, "child", lambda *_, **__: pytest.fail("it began"))
    with failing(UserError, "triton-no-scratch", "TMPDIR"):
        cli.run()


def test_a_noexec_folder_is_recognized(tmp_path):
    code = f'from pathlib import Path; from serving.triton import scratch; print(scratch._is_fit(Path("{tmp_path}")))'
    assert mounted(tmp_path, "noexec", code).stdout == "False\n"
    assert mounted(tmp_path, "exec", code).stdout == "True\n"
