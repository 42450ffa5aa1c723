"""An edit while a stage runs: the stage fails and names it, and DVC records nothing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.core import inputs, lockfile
from tests.support.project import ROOT, Clone, environment

pytestmark = pytest.mark.slow

GRAPH = """
vars:
  - paths: {made: made, out: out.txt, raw: raw, other: other}
stages:
  make:
    cmd: mkdir ${paths.made} && cp raw ${paths.made}/a && cp raw ${paths.made}/b
    deps: [raw]
    outs: ["${paths.made}"]
  copy:
    cmd: python -m stages.copy
    params: [train.rate, train.options]
    deps:
      - ${paths.made}
      - ${data.path}
      - stages/copy.py
      - stages/core/command.py
      - stages/schema/kinds
    outs: ["${paths.out}"]
  other:
    cmd: python -m stages.other
    deps: [raw]
    outs: [other]
"""
PARAMS = """# the first line
data: {path: data}
train:
  rate: 1e-3
  options: {a: [1, 2]}
serve: {keep: 3}
"""
# A real stage that waits if the file `go` is a pipe, and that runs `late.py` after its end if that file exists.
STAGE = """
import os, sys
from pathlib import Path
from stages.core import command
from stages.settings import params

def main(made: Path, data: Path, out: Path) -> None:
    rate = next(line for line in Path("params.yaml").read_text().splitlines() if "rate" in line)
    print("has begun", flush=True)
    if os.path.exists("go"):
        Path("go").read_text()
    with open("runs", "a") as file:
        file.write("run")
    out.write_text(rate + (made / "a").read_text())

if __name__ == "__main__":
    try:
        command.run(main)
    finally:
        if os.path.exists("late.py"):
            exec(Path("late.py").read_text())
"""
OTHER = """
from pathlib import Path
from stages.core import command

def main(raw: Path, other: Path) -> None:
    other.write_text(raw.read_text())

if __name__ == "__main__":
    command.run(main)
"""
BY_HAND = [sys.executable, "-m", "stages.copy"]


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A small project with real stages, run once."""
    folder = tmp_path_factory.mktemp("pattern") / "project"
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    for name, text in {
        "dvc.yaml": GRAPH,
        "params.yaml": PARAMS,
        "stages/copy.py": STAGE,
        "stages/other.py": OTHER,
        "raw": "raw",
        "data/1": "one",
        "data/2": "two",
        ".gitignore": "runs\ngo\nlate.py\n",
    }.items():
        (folder / name).write_text(text)
    made = Clone(folder)
    made.init()
    return made


@pytest.fixture
def project(pattern: Clone, tmp_path: Path) -> Clone:
    return pattern.copy(tmp_path / "project")


@contextlib.contextmanager
def running(project: Clone, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose stage has started and continues when the block ends."""
    os.mkfifo(project.folder / "go")
    process = project.start(*command)
    try:
        seen = ""
        while "has begun" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        yield process
        with (project.folder / "go").open("w"):
            (project.folder / "go").unlink()
        process.wait(timeout=60)
    finally:
        process.kill()


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    """A function that replaces text in a file."""

    def act(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return act


def swapped(folder: Path) -> None:
    """Replace a file by one of the same size and times, by a rename."""
    old, new = folder / "data/1", folder / "data/new"
    new.write_text("eno")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    new.rename(old)


def touched(*names: str) -> Callable[[Path], object]:
    """A function that changes the times of files, and not their bytes."""
    return lambda folder: [os.utime(folder / name, (1, 1)) for name in names]


RELATED = {
    "param": (edit("params.yaml", "1e-3", "2e-3"), "train.rate in params.yaml was 0.001 and is 0.002 now"),
    "inner param": (edit("params.yaml", "[1, 2]", "[1, 3]"), '{"a": [1, 3]} now'),
    "param gone": (edit("params.yaml", "  rate: 1e-3\n", ""), "train.rate in params.yaml was 0.001 and is null"),
    "params broken": (edit("params.yaml", "train:", "train"), "can no longer be read"),
    "graph": (edit("dvc.yaml", "params: [train.rate, ", "params: ["), "copy in dvc.yaml changed"),
    "graph's deps": (edit("dvc.yaml", "      - stages/schema/kinds\n", ""), "copy in dvc.yaml changed"),
    "code": (edit("stages/core/command.py", "import sys", "import sys  #"), "stages/core/command.py changed"),
    "new code": (
        lambda folder: (folder / "stages/schema/kinds/new.py").touch(),
        "stages/schema/kinds/new.py was added",
    ),
    "code gone": (
        lambda folder: (folder / "stages/schema/kinds/text.py").unlink(),
        "stages/schema/kinds/text.py was removed",
    ),
    "data": (edit("data/1", "one", "eno"), "data/1 changed"),
    "data under another inode": (swapped, "data/1 changed"),
    "more data": (lambda folder: (folder / "data/3").write_text("three"), "data/3 was added"),
    "made data": (edit("made/b", "raw", "war"), "made/b changed"),
    "lock of what made the data": (
        lambda folder: (folder / "dvc.lock").write_text(
            re.sub(r"(path: made\n +hash: md5\n +md5: )[0-9a-f]{4}", r"\g<1>0000", (folder / "dvc.lock").read_text())
        ),
        "dvc.lock has another entry for",
    ),
}
UNRELATED = {
    "comment": edit("params.yaml", "# the first", "# another first"),
    "another way to write it": edit("params.yaml", "1e-3", "0.001"),
    "another section": edit("params.yaml", "keep: 3", "keep: 4"),
    "another stage": edit("dvc.yaml", "python -m stages.other", "python  -m stages.other"),
    "another stage's lock": lambda folder: lockfile.move_last(["make"], folder),
    "touched": touched("data/1", "made/a", "made/b", "stages/core/command.py", "params.yaml", "dvc.lock"),
    "compiled": lambda folder: (folder / "stages/schema/kinds/new.pyc").touch(),
}


@pytest.mark.parametrize("kind", RELATED)
def test_an_edit_of_an_input_fails_the_stage(project: Clone, kind: str) -> None:
    act, words = RELATED[kind]
    with running(project, *BY_HAND) as process:
        act(project.folder)
    output = process.stdout.read()
    assert process.returncode == 1, output
    (line,) = output.splitlines()
    assert line.startswith("error: ") and words in line


@pytest.mark.parametrize("kind", UNRELATED)
def test_an_unrelated_edit_does_not_fail_the_stage(project: Clone, kind: str) -> None:
    with running(project, *BY_HAND) as process:
        UNRELATED[kind](project.folder)
    assert process.returncode == 0, process.stdout.read()


@pytest.mark.parametrize("kind", ["param", "code", "data", "made data"])
def test_dvc_records_nothing_of_a_failed_stage_and_runs_it_again(project: Clone, kind: str) -> None:
    shutil.rmtree(project.folder / ".dvc/cache/runs")
    edit("params.yaml", "1e-3", "5e-3")(project.folder)
    before = (project.folder / "dvc.lock").read_bytes()
    act, words = RELATED[kind]
    with running(project, "dvc", "repro", "copy") as process:
        if kind == "param":
            edit("params.yaml", "5e-3", "6e-3")(project.folder)
            words = "train.rate in params.yaml was 0.005 and is 0.006 now"
        else:
            act(project.folder)
    output = process.stdout.read()
    assert process.returncode != 0
    assert words in output
    assert (project.folder / "dvc.lock").read_bytes() == before
    assert not list((project.folder / ".dvc/cache/runs").rglob("?" * 64))
    project.run("dvc", "repro", "copy")
    assert ("6e-3" if kind == "param" else "5e-3") in (project.folder / "out.txt").read_text()


@pytest.mark.parametrize("next_one", ["a stage", "a command"])
def test_the_next_command_finds_an_edit_between_the_stages_end_and_dvcs_record(project: Clone, next_one: str) -> None:
    edit("params.yaml", "1e-3", "5e-3")(project.folder)
    late = 'Path("params.yaml").write_text(Path("params.yaml").read_text().replace("5e-3", "6e-3"))'
    (project.folder / "late.py").write_text(late)
    project.run("dvc", "repro", "copy")
    assert "train.rate: 0.006" in (project.folder / "dvc.lock").read_text(), "it was not late enough"
    assert "5e-3" in (project.folder / "out.txt").read_text()
    (project.folder / "late.py").unlink()
    if next_one == "a command":
        with pytest.raises(inputs.Changed, match=r"train.rate .* 0.005 .* 0.006.* as copy ended"):
            inputs.verify(project.folder)
    else:
        assert "as copy ended" in project.run("dvc", "repro", "--single-item", "--force", "other", code=255)
    assert "train.rate: 0.006" not in (project.folder / "dvc.lock").read_text()
    project.run("dvc", "repro", "copy")
    assert "6e-3" in (project.folder / "out.txt").read_text(), "DVC's run cache had it"
    inputs.verify(project.folder)


@pytest.mark.parametrize("kind", ["code", "data", "touched", "other data"])
def test_files_changed_between_the_stages_end_and_dvcs_record(project: Clone, kind: str) -> None:
    edit("params.yaml", "1e-3", "5e-3")(project.folder)
    late = {
        "code": 'Path("stages/schema/kinds/new.py").touch()',
        "data": 'Path("data/1").write_text("eno")',
        "touched": 'os.utime("data/1", (1, 1)); os.utime("made/a", (1, 1)); os.utime("stages/core/command.py", (1, 1))',
        "other data": 'Path("other").write_text("else")',
    }
    (project.folder / "late.py").write_text(late[kind])
    project.run("dvc", "repro", "copy")
    if kind in ("code", "data"):
        with pytest.raises(inputs.Changed, match=r"stages/schema/kinds|data"):
            inputs.verify(project.folder)
    inputs.verify(project.folder)
    assert ("train.rate: 0.005" in (project.folder / "dvc.lock").read_text()) == (kind not in ("code", "data"))


def test_a_file_recorded_by_dvc_is_not_hashed_at_the_start(project: Clone, monkeypatch) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(inputs, "_current", None)
    snapshot = inputs.take_snapshot("copy", [], {}, time.time() + 1)
    assert "made" not in snapshot.hashes and {"data", "stages/schema/kinds"} < snapshot.hashes.keys()
    assert inputs.recorded("made/a", snapshot.lock) == {"": inputs.recorded("made", snapshot.lock)["a"]}
    assert list(snapshot.changes()) == []


def test_code_that_changes_while_the_process_starts_is_an_error(project: Clone, monkeypatch) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(inputs, "_current", None)
    began = (
        (inputs.ROOT / "stages/core/command.py").stat().st_ctime
    )  # this process runs no code of the project's folder
    with pytest.raises(inputs.Changed, match="changed as the stage started"):
        inputs.take_snapshot("copy", [], {}, began - 1)


def test_a_command_that_was_edited_after_dvc_read_it_is_an_error(project: Clone) -> None:
    surroundings = environment(project.folder) | {"DVC_STAGE": "copy", "DVC_ROOT": str(project.folder)}
    command = [*BY_HAND, "--data", "raw"]
    done = subprocess.run(command, cwd=project.folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "changed since DVC read" in done.stderr


def test_a_failed_stage_leaves_no_note_of_an_earlier_run(project: Clone) -> None:
    lock = (project.folder / "dvc.lock").read_bytes()
    for old, new in (("1e-3", "4e-3"), ("4e-3", "5e-3")):
        edit("params.yaml", old, new)(project.folder)
        project.run("dvc", "repro", "copy")
    (project.folder / "dvc.lock").write_bytes(lock)
    edit("params.yaml", "5e-3", "7e-3")(project.folder)
    with running(project, "dvc", "repro", "--single-item", "copy") as process:
        edit("params.yaml", "7e-3", "6e-3")(project.folder)
    assert process.returncode != 0
    inputs.verify(project.folder)
    assert (project.folder / "dvc.lock").read_bytes() == lock
