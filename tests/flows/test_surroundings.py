"""Unusual surroundings: a merge, a limited terminal, git that refuses, closed outputs, and other packages."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.releases import git_history
from serving.releases.store import Store
from tests.support.project import ROOT, Clone, environment

pytestmark = pytest.mark.slow

CONFLICT = "<<<<<<< HEAD\n{0}=======\n{0}>>>>>>> other\n"


def millrace(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the `millrace` command, with this project's code, in another folder."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    surroundings = environment(ROOT) | changes
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "params.yaml"])
def test_during_a_merge_a_run_is_refused_and_a_rollback_works(after_two: Path, name: str) -> None:
    path = after_two / name
    path.write_text(CONFLICT.format(path.read_text() if path.exists() else "schema: '2.0'\n"))
    kept = Store(after_two / "live").kept("digits")
    run = millrace(after_two, "run")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"error: {name} is in conflict")
    back = millrace(after_two, "rollback")
    assert back.returncode == 0, back.stderr
    live = Store(after_two / "live").current("digits")
    assert live in kept
    status = millrace(after_two, "status")
    assert status.returncode == 0, status.stderr
    assert live in status.stdout
    assert f"not settled: {name} is in conflict" in status.stdout
    assert "Traceback" not in run.stderr + back.stderr + status.stderr


def test_a_rollback_leaves_a_valid_dvc_pointer(after_two: Path) -> None:
    assert millrace(after_two, "rollback").returncode == 0
    made = Clone(after_two)
    assert "up to date" in made.run("dvc", "status", "champion/repository.dvc")
    shutil.rmtree(after_two / "champion/repository")
    made.run("dvc", "checkout", "champion/repository.dvc")


def test_status_names_what_is_not_committed(after_two: Path) -> None:
    assert "not settled: git has no commit of champion/" in millrace(after_two, "status").stdout
    Clone(after_two).run("git", "add", "champion")
    Clone(after_two).run("git", "commit", "-qm", "champion")
    assert "not settled" not in millrace(after_two, "status").stdout
    (after_two / "champion/golden.json").write_text("{}")
    assert "not settled: git has no commit of champion/golden.json" in millrace(after_two, "status").stdout


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_without_unicode_does_not_change_the_outcome(encoding: str) -> None:
    program = "from stages.core import command; command.reporting(lambda: print('│ ≥ ☃'))"
    surroundings = environment(ROOT) | {"PYTHONIOENCODING": encoding}
    process = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, check=False)
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"\\u2603" in process.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full", ">&- 2>&-", "| true"])
def test_a_closed_output_does_not_change_the_outcome(tmp_path: Path, closed: str) -> None:
    program = "from stages.core import command; command.reporting(lambda: [print('x' * 9999) for _ in range(99)])"
    (tmp_path / "program.py").write_text(program)
    script = f'{{ "{sys.executable}" program.py; echo $? > code; }} {closed}'
    subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment(ROOT), capture_output=True, check=False)
    assert (tmp_path / "code").read_text() == "0\n"


@pytest.mark.parametrize("closed", [">&-", ">/dev/full", ">&- 2>&-", "2>&1 | true"])
def test_a_closed_output_does_not_change_the_outcome_of_a_run(tmp_path: Path, closed: str) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo made > made, outs: [made]}}\n")
    (tmp_path / "program.py").write_text(
        "import sys\nfrom flows import cli\nfrom stages.core import command\n"
        "command.reporting(lambda: sys.exit(cli.child(cli.REPRO)))\n"
    )
    surroundings = environment(ROOT)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, env=surroundings, check=True)
    script = f'{{ "{sys.executable}" program.py; echo $? > code; }} {closed}'
    subprocess.run(["sh", "-c", script], cwd=tmp_path, env=surroundings, capture_output=True, check=False)
    assert ((tmp_path / "code").read_text(), (tmp_path / "made").read_text()) == ("0\n", "made\n")


def test_a_repository_of_another_owner_is_an_error_with_a_remedy(after_two: Path) -> None:
    process = millrace(after_two, "trace", "0123456789ab", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert f"git config --global --add safe.directory {after_two}" in line
    assert "git init" not in line


def test_a_rollback_on_a_detached_head_warns(after_two: Path) -> None:
    Clone(after_two).run("git", "checkout", "-q", "--detach")
    process = millrace(after_two, "rollback")
    assert process.returncode == 0
    assert "git switch -c NAME" in process.stderr


def test_a_trace_in_a_shallow_clone_names_the_remedy(after_two: Path, tmp_path: Path) -> None:
    (after_two / "more").touch()
    made = Clone(after_two)
    made.run("git", "add", "more")
    made.run("git", "commit", "-qm", "more")
    made.run("git", "clone", "-q", "--depth", "1", f"file://{after_two}", str(tmp_path / "shallow"))
    assert git_history.shallow(tmp_path / "shallow")
    process = millrace(tmp_path / "shallow", "trace", "0123456789ab")
    assert process.returncode == 1
    assert "git fetch --unshallow" in process.stderr


def test_other_packages_of_the_same_names_are_ignored(tmp_path: Path) -> None:
    for name in ("serving", "stages", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('another one')")
    surroundings = environment(ROOT) | {"PYTHONPATH": str(tmp_path)}
    program = "import sys; sys.argv = ['millrace', '--help']; from millrace import main; main()"
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {program}"]
    process = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_a_missing_prefect_server_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    surroundings = environment(ROOT) | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "flows.pipeline"]
    process = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: no Prefect server answers at http://127.0.0.1:9/api")


def test_a_copy_made_by_dvc_exp_finds_the_projects_server(tmp_path: Path) -> None:
    for name in ("stages", "serving"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    prefix = tmp_path / "project/.venv"
    binary = prefix.parent / ".venv-triton/lib/python3.11/site-packages/pytriton/tritonserver/bin/tritonserver"
    binary.parent.mkdir(parents=True)
    binary.touch()
    program = (
        f"import sys; sys.prefix = {str(prefix)!r}; from serving.triton import launcher; print(launcher.find_server())"
    )
    surroundings = {name: value for name, value in environment(tmp_path).items() if name != "MILLRACE_TRITON"}
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=True
    )
    assert str(binary) in process.stdout


@pytest.mark.parametrize("module", ["stages.gate", "stages.train", "flows.cli", "flows.pipeline"])
def test_ctrl_c_while_a_command_is_imported_is_quiet(module: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", module]  # a line on stderr for each module that is imported
    with subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), stderr=subprocess.PIPE, text=True) as process:
        lines = iter(process.stderr)
        assert any("stages.core.interrupts" in line for line in lines)
        process.send_signal(signal.SIGINT)
        rest = "".join(lines)
    assert process.returncode == 130
    assert "Traceback" not in rest and "KeyboardInterrupt" not in rest
