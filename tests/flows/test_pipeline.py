"""The Prefect flow on a small real DVC project: it writes the same dvc.lock as `dvc repro` and leaves no process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import artifacts, pipeline, schedule
from flows.pipeline import Stage, conclude, judge, waits
from stages.core import lockfile
from stages.core.children import child_environment
from stages.core.locks import holding
from tests.support.project import ROOT

pytestmark = pytest.mark.slow

PATIENCE_S = 60  # seconds to wait for an expected event

# Each stage also runs do/STAGE.sh. That is not a dependency, so dvc.lock is the same whatever it does.
GRAPH = """
vars:
  - paths:
      metrics: out/metrics.json
      verdict: out/verdict.json
stages:
  left:
    cmd: sh do/left.sh && cp seed out/left
    deps: [seed]
    outs: [out/left]
  right:
    cmd: sh do/right.sh && cp seed ${paths.metrics}
    deps: [seed]
    outs: ["${paths.metrics}"]
  gate:
    cmd: sh do/gate.sh && cp verdict.json ${paths.verdict}
    deps: [out/left, "${paths.metrics}", verdict.json]
    outs: ["${paths.verdict}"]
"""
VERDICT = {
    "verdict": "pass",
    "release": "0123456789ab",
    "criteria": [
        {"about": "threshold", "name": "accuracy", "bound": "at least 0.9", "value": 0.8, "holds": True, "reason": ""}
    ],
}


class Project:
    """A folder with a pipeline, and the two ways to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flows: list[subprocess.Popen[str]] = []

    def does(self, stage: str, script: str) -> None:
        """Set the script that a stage also runs."""
        (self.folder / "do" / f"{stage}.sh").write_text(script)

    def verdict(self, **changes: Any) -> None:
        """Set the gate's verdict."""
        (self.folder / "verdict.json").write_text(json.dumps({**VERDICT, **changes}))

    def lock(self) -> bytes:
        """The bytes of dvc.lock."""
        return (self.folder / "dvc.lock").read_bytes()

    def recorded(self) -> bytes:
        """The bytes of dvc.lock; empty if there is none yet."""
        return self.lock() if (self.folder / "dvc.lock").exists() else b""

    def repro(self, check: bool = True) -> None:
        """A plain `dvc repro`."""
        subprocess.run(["dvc", "repro", "-q"], cwd=self.folder, env=child_environment(), check=check)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """`python -m flows.pipeline`."""
        flow = subprocess.Popen(
            [sys.executable, "-m", "flows.pipeline"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.flows.append(flow)
        return flow

    def run(self) -> tuple[int, str]:
        """Run `python -m flows.pipeline` to its end; return its exit code and output."""
        process = self.start()
        output, _ = process.communicate(timeout=2 * PATIENCE_S)
        return process.returncode, output


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server for all tests of this module. The proxies in the environment do not exist."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.delenv("PREFECT_API_URL", raising=False)
        with pipeline.api():
            patch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
            yield


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after a plain `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("pattern"))
    (project.folder / "out").mkdir()
    (project.folder / "do").mkdir()
    (project.folder / "dvc.yaml").write_text(GRAPH)
    (project.folder / "seed").write_text('{"val": {"accuracy": 0.8}}')
    project.verdict()
    for stage in ("left", "right", "gate"):
        project.does(stage, ":")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=project.folder, env=child_environment(), check=True)
    project.repro()
    return project


@pytest.fixture
def project(pattern: Project, tmp_path: Path) -> Iterator[Project]:
    """The project before its first run. Flows are killed at the end of the test."""
    shutil.copytree(pattern.folder, tmp_path / "project")
    shutil.rmtree(tmp_path / "project" / ".dvc" / "cache")
    for path in (tmp_path / "project" / "out").iterdir():
        path.unlink()
    (tmp_path / "project" / "dvc.lock").unlink()
    project = Project(tmp_path / "project")
    yield project
    for flow in project.flows:
        flow.kill()
        flow.communicate()


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition does not become true"
        time.sleep(0.02)


def last_run() -> Any:
    """The server's newest run."""
    from prefect.client.schemas.sorting import FlowRunSort

    with pipeline.get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def test_independent_stages_overlap_and_write_the_lock_of_dvc_repro(project: Project, pattern: Project) -> None:
    for name in ("left", "right"):
        os.mkfifo(project.folder / name)
    project.does("left", ": > left & cat right; wait; until grep -q right: dvc.lock 2> /dev/null; do sleep 0.05; done")
    project.does("right", ": > right & cat left; wait")
    code, output = project.run()
    assert code == 0, output
    assert project.lock() == pattern.lock()
    assert "release 0123456789ab passes" in output
    assert "the report of this run: out/index.html" in output


def test_a_failed_stage_stops_those_after_it_and_dvc_repro_can_continue(project: Project, pattern: Project) -> None:
    project.does("left", "echo 'error: the moon is full' >&2; exit 1")
    project.does("right", "touch right-was-run")
    project.does("gate", "touch gate-was-run")
    code, output = project.run()
    assert code == 1, output
    assert "error: left failed: the moon is full\n" in output
    assert "Traceback" not in output
    assert output.count("Running stage 'left'") == 1, "a permanent failure was retried"
    assert (project.folder / "right-was-run").exists()
    assert not (project.folder / "gate-was-run").exists()
    project.does("left", ":")
    project.repro()
    assert pipeline.YAML().load(project.lock()) == pipeline.YAML().load(pattern.lock())


def test_the_flow_continues_after_dvc_repro_and_retries_a_killed_stage(project: Project, pattern: Project) -> None:
    project.does("right", "exit 1")
    project.repro(check=False)
    project.does("right", "test -e again || { touch again; kill -9 $$; }")
    code, output = project.run()
    assert code == 0, output
    assert "Stage 'left' didn't change, skipping" in output
    assert output.count("Running stage 'right'") == 2
    assert project.lock() == pattern.lock()


def test_a_refused_verdict_is_a_completed_run_named_refused(project: Project) -> None:
    criterion = {**VERDICT["criteria"][0], "holds": False, "reason": "0.8 is not at least 0.9"}
    project.verdict(verdict="refuse", criteria=[criterion])
    code, output = project.run()
    assert code == 3, output
    state = last_run().state
    assert (state.type.value, state.name) == ("COMPLETED", "Refused")
    assert "0.8 is not at least 0.9" in state.message
    assert "0.8 is not at least 0.9" in (project.folder / "out/card.md").read_text()


def test_a_verdict_that_needs_a_person_is_a_completed_run_of_that_name(tmp_path: Path) -> None:
    verdict = VERDICT | {"verdict": "needs a person"}
    verdict["criteria"] = [{**VERDICT["criteria"][0], "holds": False, "reason": "0.8 is not at least 0.9"}]
    (tmp_path / "verdict.json").write_text(json.dumps(verdict))
    state = conclude({}, {"verdict": str(tmp_path / "verdict.json")})
    assert (state.type.value, state.name) == ("COMPLETED", "NeedsPerson")
    assert "needs a person: 0.8 is not at least 0.9" in (state.message or "")


def test_refused_data_are_not_a_failure(project: Project) -> None:
    project.does("left", "echo 'error: the data are refused: no rows' >&2; exit 3")
    code, output = project.run()
    assert code == 3, output
    assert "error: left: the data are refused: no rows\n" in output
    assert "there is no report of this run: nothing has been judged yet" in output
    assert last_run().state.name == "Refused"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, "cancel", "own server"])
def test_no_child_outlives_the_flow(end: Any, project: Project, pattern: Project) -> None:
    project.does("left", "sleep 1000 & echo $! > child; wait")  # a shell that neither execs nor forwards signals
    environment = {"PREFECT_API_URL": ""} if end == "own server" else {}
    flow = project.start(**environment)
    note = project.folder / "child"
    until(lambda: note.exists() and note.read_text().endswith("\n") and b"right:" in project.recorded())
    children = psutil.Process(flow.pid).children(recursive=True)
    assert int(note.read_text()) in [child.pid for child in children]
    if end == "cancel":
        cancel(last_run().id)
    else:
        flow.send_signal(signal.SIGKILL if end == "own server" else end)
    output, _ = flow.communicate(timeout=PATIENCE_S)
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    if end == "cancel":
        assert flow.returncode == 1, output
        until(lambda: last_run().state.is_cancelled())
    project.does("left", ":")
    project.repro()
    assert pipeline.YAML().load(project.lock()) == pipeline.YAML().load(pattern.lock())


def cancel(run: Any) -> None:
    """Cancel a run as the UI does."""
    from prefect.states import Cancelling

    with pipeline.get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())


def test_a_second_run_in_a_folder_fails_and_names_the_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    with holding(pipeline.ONE_RUN, "a run"):
        state = pipeline.pipeline.fn()
    assert state.is_failed()
    assert f"process {os.getpid()}" in state.message


def test_a_users_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeline"])
    assert pipeline.main() == 1
    monkeypatch.setattr(sys, "argv", ["schedule", "--cron", "61 3 * * *"])
    assert schedule.main() == 2
    Path("dvc.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["schedule", "--cron", "0 3 * * *"])
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert schedule.main() == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["error"] * 3
    assert "no dvc.yaml here" in errors[0]
    assert "61 3" in errors[1]
    assert "`prefect server start`" in errors[2]


@pytest.mark.parametrize(
    ("code", "lines", "name"),
    [
        (0, ["Stage 'train' didn't change, skipping"], "Completed"),
        (255, ["error: no epochs", "ERROR: failed to reproduce 'train': ..., exited with 1"], "Failed"),
        (255, ["error: refused", "ERROR: failed to reproduce 'validate': ..., exited with 3"], "Refused"),
        (255, ["ERROR: failed to reproduce 'train': ..., exited with -9"], "Interrupted"),
        (255, ["ERROR: failed to reproduce 'train': ..., exited with 137"], "Interrupted"),
        (255, ["ERROR: 'data' is busy, it is being blocked by:", "  (PID 7): dvc repro"], "Interrupted"),
        (255, ["ERROR: Unable to acquire lock. Most likely another DVC process is running"], "Interrupted"),
        (255, ["error: tritonserver is not ready after 60 s", "ERROR: ..., exited with 1"], "Interrupted"),
        (137, [], "Interrupted"),
        (255, ["ERROR: output 'x' does not exist"], "Failed"),
    ],
)
def test_only_temporary_failures_are_retried(code: int, lines: list[str], name: str) -> None:
    assert judge(code, lines, 1.0).name == name


def test_nothing_runs_beside_a_stage_that_runs_alone() -> None:
    graph = [Stage("a", (), ()), Stage("b", (), ()), Stage("times", ("a",), (), alone=True), Stage("c", ("b",), ())]
    assert waits(graph) == {"a": [], "b": [], "times": ["a", "b"], "c": ["b", "times"]}


def test_an_edit_as_a_stage_ends_fails_it_and_is_not_recorded(project: Project) -> None:
    shutil.copytree(ROOT / "stages", project.folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "flows/report/templates", project.folder / "flows/report/templates")  # beside these stages
    (project.folder / "stages/left.py").write_text(EDITED)
    (project.folder / "params.yaml").write_text("a: {b: 1}\n")
    graph = GRAPH.replace(
        "cmd: sh do/left.sh && cp seed out/left",
        "cmd: python -m stages.left --seed seed --left out/left\n    params: [a.b]",
    )
    (project.folder / "dvc.yaml").write_text(graph)
    (project.folder / "edit").touch()
    code, output = project.run()
    assert code == 1, output
    assert "left failed: a.b in params.yaml was 1 and became 2, as left ended" in output
    assert "left" not in lockfile.stages(project.folder)
    (project.folder / "edit").unlink()
    code, output = project.run()
    assert code == 0, output
    assert lockfile.stages(project.folder)["left"]["params"] == {"params.yaml": {"a.b": 2}}


EDITED = """
from pathlib import Path
from stages.core import command

def main(seed: Path, left: Path) -> None:
    left.write_text(seed.read_text())

if __name__ == "__main__":
    try:
        command.run(main)
    finally:
        if Path("edit").exists():
            Path("params.yaml").write_text("a: {b: 2}")
"""


def test_the_artifacts_of_a_run_are_tables_and_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: dict[str, Any] = {}
    for function in ("create_table_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(artifacts, function, lambda content, key, **_: published.update({key: content}))
    (tmp_path / "metrics.json").write_text('{"val": {"accuracy": 0.81234}, "test": {"accuracy": 0.8, "f1": null}}')
    (tmp_path / "curves.csv").write_text("epoch,val_loss\n1,0.5\n")
    (tmp_path / "verdict.json").write_text(json.dumps(VERDICT))
    paths = {path.stem: str(path) for path in tmp_path.iterdir()}
    artifacts.publish(paths, set(paths.values()) - {paths["verdict"]})
    assert published == {
        "millrace-metrics": [
            {"metric": "accuracy", "val": "0.8123", "test": "0.8"},
            {"metric": "f1", "val": "", "test": ""},
        ],
        "millrace-curves": [{"epoch": "1", "val_loss": "0.5"}],
    }
    artifacts.publish(paths, {paths["verdict"]})
    row = {"criterion": "accuracy", "bound": "at least 0.9", "value": "0.8", "outcome": "holds"}
    assert published["millrace-verdict"] == [row]


def test_the_former_name_of_the_schedule_still_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.deployments", "--cron", "61 3 * * *"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    notice, error = ended.stderr.splitlines()
    assert (ended.returncode, notice) == (2, "note: `python -m flows.deployments` is now `python -m flows.schedule`")
    assert error.startswith("error: --cron: ")
