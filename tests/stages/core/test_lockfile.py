"""A `dvc.lock` or rwlock that is truncated by a kill or has merge conflicts: the next command repairs it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.core import lockfile
from stages.core.errors import UserError
from tests.support.project import Clone, environment

pytestmark = pytest.mark.slow

GRAPH = """
stages:
  first: {cmd: "echo . >> runs; cp raw a", deps: [raw], outs: [a]}
  second: {cmd: "echo . >> runs; cp a b", deps: [a], outs: [b]}
  third: {cmd: "echo . >> runs; mkdir c; cp b c/d", deps: [b], outs: [c]}
"""
# DVC's own main, killed in its third writing of dvc.lock.
KILL = """
import os, signal
from dvc.utils.serialize import _yaml
from dvc.cli import main

class Broken:
    def __init__(self, file):
        self.file, self.room, self.encoding = file, 300, file.encoding
    def write(self, text):
        self.file.write(text[: self.room])
        self.room -= len(text)
        if self.room < 0:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

real, times = _yaml._dump, []
def dump(data, stream):
    times.extend([1] * str(stream.name).endswith("dvc.lock"))
    real(data, Broken(stream) if len(times) == 3 else stream)
_yaml._dump = dump
main()
"""


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A small project, run once, with its first dvc.lock committed and backed up."""
    folder = tmp_path_factory.mktemp("pattern") / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "raw").write_text("raw")
    made = Clone(folder)
    made.init()
    lockfile.keep(folder)
    return made


@pytest.fixture
def project(pattern: Clone, tmp_path: Path) -> Clone:
    return pattern.copy(tmp_path / "project")


def runs(project: Clone) -> int:
    return (project.folder / "runs").read_text().count(".")


@pytest.mark.parametrize("known", ["the copy", "git", "neither"])
@pytest.mark.parametrize("size", [0, 1, "half", "a line", "a stage", "all but the last", "random"])
def test_a_truncated_lock_is_restored(project: Clone, size: int | str, known: str) -> None:
    lock = project.folder / "dvc.lock"
    whole = lock.read_bytes()
    cut = {
        "half": len(whole) // 2,
        "a line": whole.index(b"\n", 200) + 1,
        "a stage": whole.index(b"  second:"),
        "all but the last": len(whole) - 1,
        "random": random.randrange(len(whole)),
    }.get(size, size)
    if known != "the copy":
        (project.folder / lockfile.COPY).unlink()
    if known == "neither":
        project.run("git", "rm", "-q", "--cached", "dvc.lock")
        project.run("git", "commit", "-qm", "without")
    lock.write_bytes(whole[: int(cut)])
    messages = lockfile.recover(project.folder)
    if not lock.exists() or lock.read_bytes() != whole:  # DVC's run cache has the entries that are lost
        assert known == "neither" or (known == "git" and size in ("a line", "a stage", "random"))
        project.run("dvc", "repro", "-q")
    assert lockfile.parse(lock.read_bytes()) == lockfile.parse(whole)
    assert len(messages) <= 1
    assert lockfile.recover(project.folder) == []
    assert runs(project) == 3, "something was made twice"


def test_the_newer_copy_is_restored(project: Clone) -> None:
    lock = project.folder / "dvc.lock"
    old = lock.read_bytes()
    (project.folder / "raw").write_text("other")
    project.run("dvc", "repro", "-q")
    lockfile.keep(project.folder)
    new = lock.read_bytes()
    lock.write_bytes(b"")
    assert len(lockfile.recover(project.folder)) == 1
    assert lock.read_bytes() == new != old
    (project.folder / lockfile.COPY).write_bytes(old)
    os.utime(project.folder / lockfile.COPY, (1, 1))
    project.run("git", "commit", "-qam", "newer")
    lock.write_bytes(new[:300])
    lockfile.recover(project.folder)
    assert lock.read_bytes() == new


def test_a_lock_from_git_or_with_conflicts_is_left_alone(project: Clone) -> None:
    lock = project.folder / "dvc.lock"
    whole = lock.read_bytes()
    shorter = whole[: whole.index(b"  second:")]
    lock.write_bytes(shorter)
    project.run("git", "commit", "-qam", "shorter")
    assert lockfile.recover(project.folder) == []
    assert lock.read_bytes() == shorter
    lock.write_bytes(b"<<<<<<< HEAD\n" + whole + b"=======\n" + whole + b">>>>>>> other\n")
    assert lockfile.recover(project.folder) == []
    with pytest.raises(UserError, match="in conflict"):
        lockfile.stages(project.folder)


@pytest.mark.parametrize("content", ["", '{"write": {"/x": {"pid": 1, "cm', "[]"])
def test_a_truncated_rwlock_is_removed_once_no_dvc_runs(project: Clone, content: str) -> None:
    (project.folder / ".dvc/tmp/rwlock").write_text(content)
    living = project.start(sys.executable, "-c", "input()", "dvc", stdin=subprocess.PIPE)
    assert lockfile.recover(project.folder) == []
    living.communicate("\n")
    assert len(lockfile.recover(project.folder)) == 1
    project.run("dvc", "repro", "-q")


def test_nothing_is_repaired_while_dvc_writes(project: Clone) -> None:
    (project.folder / "dvc.lock").write_bytes(b"")
    with lockfile.idle(project.folder):
        assert lockfile.recover(project.folder) == []
    assert len(lockfile.recover(project.folder)) == 1


def test_dvc_killed_while_it_writes_loses_no_finished_stage(project: Clone) -> None:
    (project.folder / "raw").write_text("other")
    (project.folder / "kill.py").write_text(KILL)
    command = [sys.executable, "kill.py", "repro"]
    killed = subprocess.run(
        command, cwd=project.folder, env=environment(project.folder), capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < (project.folder / "dvc.lock").stat().st_size < 500
    (message,) = lockfile.recover(project.folder)
    assert "dvc.lock was cut" in message
    project.run("dvc", "repro", "-q")
    assert runs(project) == 3 + 3, "a stage that had ended was run again"
    assert (project.folder / "c/d").read_text() == "other"


def test_a_lock_without_its_last_entry_is_complete(project: Clone) -> None:
    for stage in ("first", "second", "third"):
        lockfile.withdraw(project.folder, stage, since=0.0)
    assert lockfile.stages(project.folder) == {}
    project.run("dvc", "repro", "-q")
    assert list(lockfile.stages(project.folder)) == ["first", "second", "third"]
