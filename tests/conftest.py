"""Fixtures that all tests share: clones of the project that really run, and releases made in them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from stages.core.arithmetic import portable
from tests.support.project import ROOT, Clone, clone

if TYPE_CHECKING:
    from serving.releases.candidate import Candidate

# A background job of a shell ignores Ctrl-C, and so would everything that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Otherwise gRPC channels of earlier tests print warnings in processes that are forked later.
os.environ["GRPC_VERBOSITY"] = "ERROR"
# A test file runs on each core. More threads would only wait for one another, and cost a quarter of the time.
os.environ["OMP_NUM_THREADS"] = "1"
# Training gives the same bits on every machine. This must come before torch is imported, and holds for child processes.
portable()


CLONES = {"fresh", "finished"}
CHANGED = {"fresh", "done"}  # a clone for each test, in which commands run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run clones or a server, and start the files that take long first: small ones fill up the end.

    The first file makes the finished clone, and those that need none run meanwhile.
    """
    for item in items:
        if not CLONES.isdisjoint(item.fixturenames):
            item.add_marker("slow")
        if "a_server" in item.fixturenames:
            item.add_marker("triton")
    cloning: Counter[Path] = Counter()
    for item in items:
        if not CLONES.isdisjoint(item.fixturenames):
            cloning[item.path] += 1 if CHANGED.isdisjoint(item.fixturenames) else 10
    slow = {item.path for item in items if item.get_closest_marker("slow")} - cloning.keys()
    first = max(cloning, key=cloning.__getitem__, default=None)
    items.sort(key=lambda item: (item.path != first, item.path not in slow, -cloning[item.path]))


@pytest.fixture(scope="session")
def a_server() -> None:
    """Skip the test where there is no Triton server, with the reason."""
    from serving.triton.launcher import find_server
    from stages.core.errors import UserError

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
        if not (shared / ".output").exists():
            loaded = shared.with_name("finished-loaded")
            loaded.mkdir()
            paths = os.pathsep.join([str(shared), str(ROOT / "tests/support/loaded")])
            recorded = {"PYTHONPATH": paths, "LOADED": str(loaded)}  # see test_code.py
            output = clone(shared).run(sys.executable, "-m", "flows.cli", "run", env=recorded)
            (shared / ".output").write_text(output)
    return Clone(shared)


@pytest.fixture
def done(finished: Clone, tmp_path: Path) -> Clone:
    """A copy of a clone in which everything has run, to change."""
    return finished.copy(tmp_path / "done")


@pytest.fixture(scope="module")
def judged(finished: Clone) -> Candidate:
    """The candidate that `millrace run` has made."""
    from serving.releases.candidate import exported
    from stages.settings import params

    paths = {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}
    return exported(paths)


@pytest.fixture(scope="module")
def candidates(judged: Candidate, tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    """Three candidates with different predictions."""
    from tests.support.releases import shifted

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
    from serving.releases.release import release
    from serving.releases.store import Store

    folder = shutil.copytree(empty, tmp_path_factory.mktemp("two") / "root")
    for candidate in candidates[:2]:
        release(folder, Store(folder / "live"), candidate, keep=3)
    return folder


@pytest.fixture
def after_two(two: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(two, tmp_path / "after-two")
