"""Clones of the project to run for real, and what every test may need to know of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from stages.arithmetic import portable

if TYPE_CHECKING:
    from serving.release import Candidate

# Begun in the background of a shell we would ignore Ctrl-C, and so would everything that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Channels that other files' tests have used would speak in whatever is forked afterwards.
os.environ["GRPC_VERBOSITY"] = "ERROR"
# A file runs on each core: more threads would wait for one another there, at the cost of a quarter of the time.
os.environ["OMP_NUM_THREADS"] = "1"
# What tests train is the same on every machine. Before anything imports torch, and for the processes that they start.
portable()

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run clones come first, and first of all those that await no other's: small ones fill up the end."""
    asked: dict[Path, set[str]] = {}
    for item in items:
        asked.setdefault(item.path, set()).update(item.fixturenames)
    items.sort(key=lambda item: (asked[item.path].isdisjoint({"fresh", "finished"}), "finished" in asked[item.path]))


def environment(folder: Path) -> dict[str, str]:
    """What a person's shell has in a clone: this environment's commands, the clone's code, the one server."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PREFECT_API_URL")}
    return kept | {
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "PYTHONPATH": str(folder),
        "MILLRACE_TRITON": os.environ.get("MILLRACE_TRITON", str(ROOT / ".venv-triton")),
        "DVC_NO_ANALYTICS": "1",
        "COLUMNS": "160",
    }


class Clone:
    """The project's own files in another folder, as `git clone` leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """Begin a command there, in a session of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(self.folder),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command there to its end; what it printed. Fails unless it exits with `code`."""
        process = self.start(*command)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == code, f"{' '.join(command)} exited with {process.returncode}:\n{said}"
        assert "Traceback" not in said, said
        return said

    def millrace(self, *arguments: str, code: int = 0) -> str:
        """Run the `millrace` command there."""
        return self.run(sys.executable, "-m", "serving.cli", *arguments, code=code)

    def params(self, **sections: dict[str, object]) -> None:
        """Change values in its params.yaml."""
        from stages import params

        params.edit(sections, self.folder / "params.yaml")

    def init(self) -> None:
        """Put it under git and DVC, run its graph, and commit what that leaves."""
        for command in (
            ("git", "init", "-q"),
            ("git", "config", "user.name", "somebody"),
            ("git", "config", "user.email", "somebody@example.org"),
            ("dvc", "init", "-q"),
            ("dvc", "repro", "-q"),
            ("git", "add", "-A"),
            ("git", "commit", "-qm", "done"),
        ):
            self.run(*command)

    def copy(self, folder: Path) -> Clone:
        """All of it, DVC's cache and outputs included, somewhere else."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder)


def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    """Return once `condition` holds. Fails where it does not in time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {deadline_s:g} s"
        time.sleep(0.02)


def clone(folder: Path) -> Clone:
    """The files that git tracks, or would, as they are now; no outputs and no cache."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in ("manifest.json", "statistics.json", "verdict.json"):
        (folder / "champion" / name).write_text("{}\n")  # whatever this project has released
    made = Clone(folder)
    made.run("git", "init", "-q")
    made.run("git", "config", "user.name", "somebody")
    made.run("git", "config", "user.email", "somebody@example.org")
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "clone")
    return made


@pytest.fixture(scope="session")
def a_server() -> None:
    """The real Triton; where there is none, a skip that says what lacks."""
    from serving.launcher import find_server
    from stages.errors import UserError

    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def fresh(tmp_path: Path) -> Clone:
    """A clone in which nothing has run."""
    return clone(tmp_path / "clone")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """One clone in which `millrace run` has ended with a pass. Read only: copy it to change it."""
    mine = tmp_path_factory.getbasetemp()
    shared = (mine if worker_id == "master" else mine.parent) / "finished"
    with FileLock(f"{shared}.lock"):
        if not (shared / ".said").exists():
            said = clone(shared).millrace("run")
            (shared / ".said").write_text(said)
    return Clone(shared)


@pytest.fixture
def done(finished: Clone, tmp_path: Path) -> Clone:
    """A copy of a clone in which everything has run, to change."""
    return finished.copy(tmp_path / "done")


@pytest.fixture(scope="module")
def judged(finished: Clone) -> Candidate:
    """What `millrace run` has left to release."""
    from serving.release import exported
    from stages import params

    paths = {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}
    return exported(paths)


@pytest.fixture(scope="module")
def candidates(judged: Candidate, tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """Three releases that answer otherwise."""
    from releases import shifted

    return [judged, *(shifted(judged, tmp_path_factory.mktemp("variant"), by) for by in (2.0, 4.0))]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project under git and DVC in which nothing was released, without data."""
    folder = tmp_path_factory.mktemp("empty") / "project"
    (folder / "champion").mkdir(parents=True)
    for name in ("manifest.json", "statistics.json"):
        (folder / "champion" / name).write_text("{}\n")
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    made = Clone(folder)
    for command in (
        ("git", "init", "-q"),
        ("git", "config", "user.name", "somebody"),
        ("git", "config", "user.email", "somebody@example.org"),
        (sys.executable, "-m", "dvc", "init", "-q"),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "empty"),
    ):
        made.run(*command)
    return folder


@pytest.fixture(scope="module")
def two(empty: Path, candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the first candidate was released, then the second."""
    from serving.release import release
    from serving.store import Store

    folder = shutil.copytree(empty, tmp_path_factory.mktemp("two") / "root")
    for candidate in candidates[:2]:
        release(folder, Store(folder / "live"), candidate, keep=3)
    return folder


@pytest.fixture
def after_two(two: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return shutil.copytree(two, tmp_path / "after-two")
