"""`millrace why` on a small project with the real code: an edit, a parameter and a data file are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT, Clone

pytestmark = pytest.mark.slow

# `train` copies a file in the place of a training; its record of code is that of the real stage.
GRAPH = """
vars:
  - paths:
      code: reports/code
stages:
  code:
    cmd: python -m stages.code ${paths.code}
    params: [data.format, schema.features, schema.target, model.encoders, model.trunk, train.augment]
    deps: [stages, serving, requirements.lock]
    outs: ["${paths.code}"]
  fetch:
    cmd: cp seed builtin
    params: [data.builtin]
    deps: ["${paths.code}/fetch.json", seed]
    outs: [builtin]
  train:
    cmd: cp builtin weights
    params: [train.epochs, train.seed]
    deps: ["${paths.code}/train.json", builtin]
    outs: [weights]
"""
LEARNER = "stages/training/learner.py"


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The project after its first run, committed."""
    folder = tmp_path_factory.mktemp("why") / "project"
    for name in ("stages", "serving", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "seed").write_text("1")
    (folder / ".gitignore").write_text("__pycache__\n")
    made = Clone(folder)
    made.init()
    return made


@pytest.fixture
def project(committed: Clone, tmp_path: Path) -> Clone:
    """A copy of it, to change."""
    return committed.copy(tmp_path / "project")


def edit(project: Clone, path: str, old: str, new: str) -> None:
    text = (project.folder / path).read_text(encoding="utf-8")
    assert old in text
    (project.folder / path).write_text(text.replace(old, new, 1), encoding="utf-8")


def append(project: Clone, path: str, text: str) -> None:
    with (project.folder / path).open("a", encoding="utf-8") as file:
        file.write(text)


def test_a_comment_changes_nothing(project: Clone) -> None:
    append(project, LEARNER, "\n# A comment.\n")
    for stage in ("train", "fetch"):
        assert project.millrace("why", stage) == f"{stage} is up to date\n"


def test_an_edit_is_named_for_the_stages_that_use_the_file(project: Clone) -> None:
    append(project, LEARNER, "\nEDITED = 1\n")
    heading, *changes = project.millrace("why", "train").splitlines()
    assert heading == "train would run again:"
    assert [change for change in changes if LEARNER in change] == changes and len(changes) == 1
    assert project.millrace("why", "fetch") == "fetch is up to date\n"


def test_a_parameter_is_named_with_both_values(project: Clone) -> None:
    before = YAML(typ="safe").load(project.folder / "params.yaml")["train"]["epochs"]
    project.params(train={"epochs": before + 1})
    assert project.millrace("why", "train").splitlines() == [
        "train would run again:",
        f"  train.epochs was {before} and is now {before + 1}",
    ]
    assert project.millrace("why", "fetch") == "fetch is up to date\n"


def test_data_and_a_command_are_named(project: Clone) -> None:
    (project.folder / "seed").write_text("2")
    edit(project, "dvc.yaml", "cp seed builtin", "cp -f seed builtin")
    assert project.millrace("why", "fetch").splitlines() == [
        "fetch would run again:",
        "  seed is modified",
        "  changed command",
    ]


def test_a_run_since_the_last_commit_has_its_causes_named(project: Clone) -> None:
    append(project, LEARNER, "\nEDITED = 1\n")
    project.params(train={"seed": 17})
    (project.folder / "seed").write_text("2")
    project.run("dvc", "repro", "-q")
    first, second, *causes = project.millrace("why", "train").splitlines()
    assert (first, second) == ("train is up to date", "it has run since the last commit:")
    assert LEARNER in causes[0]
    assert causes[1:] == ["  train.seed was 0 and became 17", "  builtin changed"]
    project.run("git", "commit", "-qam", "again")
    assert project.millrace("why", "train") == "train is up to date\n"


def test_the_first_stage_names_the_folders_of_code(project: Clone) -> None:
    append(project, LEARNER, "\n# A comment.\n")
    assert project.millrace("why", "code").splitlines() == ["code would run again:", "  stages is modified"]


def test_a_stage_that_has_never_run(project: Clone) -> None:
    (project.folder / "dvc.lock").unlink()
    assert project.millrace("why", "train") == "train would run again:\n  train has never run\n"


def test_an_unknown_stage_is_an_error_with_the_nearest_name(project: Clone) -> None:
    assert "there is no stage 'trian': did you mean 'train'?" in project.millrace("why", "trian", code=2)
