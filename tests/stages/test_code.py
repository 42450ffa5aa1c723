"""Which stages an edit makes run again: by the records of their code, in a clone in which everything has run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.core import closure
from stages.settings import params
from tests.support.project import ROOT, Clone

STAGES = [stage for stage in params.stages(ROOT / "dvc.yaml") if stage != "code"]
SERVED = ["verify", "challenge", "measure"]  # the stages that start a server


def append(name: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text)

    return edit


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text, f"{name} no longer has {old!r}"
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def docstring(name: str) -> Callable[[Path], None]:
    """Change the docstring of a module."""
    return replace(name, '"""', '"""In other words: ')


def upgrade(folder: Path) -> None:
    """Another version of torch is locked, and what Python finds first."""
    replace("requirements.lock", "torch==", "torch==99.0.")(folder)
    metadata = folder / "torch-99.0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")


# What is edited, how, and the stages whose code or parameters that changes; stages after them run where outputs change.
EDITS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a comment in `training/learner.py`": (append("stages/training/learner.py", "# why\n"), []),
    "a docstring in `gating/verdict.py`": (docstring("stages/gating/verdict.py"), []),
    "a plot's color": (
        replace("stages/evaluation/plots/target_class.py", '"Blues"', '"Greens"'),
        ["evaluate"],
    ),
    "a new encoder that nothing uses": (append("stages/networks/encoders/mine.py", "class Encoder: ...\n"), []),
    "a default of the encoder in use": (
        replace("stages/networks/encoders/cnn.py", "PositiveInt = 32", "PositiveInt = 24"),
        ["train", "evaluate", "export"],
    ),
    "a kind that the schema does not name": (append("stages/schema/kinds/timestamp.py", "LIMIT = 1\n"), []),
    "how a picture is drawn": (append("stages/schema/views/image.py", "LIMIT = 1\n"), ["evaluate", "challenge"]),
    "the gate's wording": (append("stages/gating/wording.py", "LIMIT = 1\n"), ["gate"]),
    "the launcher": (append("serving/triton/launcher.py", "LIMIT = 1\n"), SERVED),
    "an expectation": (append("stages/validation/expectations/image.py", "LIMIT = 1\n"), ["validate"]),
    "torch's version": (upgrade, ["train", "evaluate", "export", "gate"]),
    "a parameter (`train.epochs`)": (replace("params.yaml", "epochs: ", "epochs: 1"), ["train"]),
}


@pytest.fixture(scope="module")
def clone(finished: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return finished.copy(tmp_path_factory.mktemp("code") / "clone")


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_runs_these_stages_again(clone, name):
    edit, expected = EDITS[name]
    edit(clone.folder)
    try:
        clone.run("dvc", "repro", "-q", "code")
        status = json.loads(clone.run("dvc", "status", "--json"))
        assert [stage for stage in STAGES if stage in status] == expected
    finally:
        clone.run("git", "checkout", "-q", "--", "stages", "serving", "params.yaml", "requirements.lock")
        clone.run("git", "clean", "-qfd", "--", "stages", "*.dist-info")


def test_the_page_for_contributors_has_this_table():
    rows = [f"| {name} | {', '.join(stages) or 'none'} |" for name, (_, stages) in EDITS.items()]
    table = "\n".join(["| edit | these stages run again |", "|---|---|", *rows])
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"<!-- reruns -->\n{table}\n<!-- /reruns -->" in page


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_a_stage_loads_is_in_its_record(finished, stage):
    """Against the modules that the stages of a real run had loaded when they ended.

    How parameters are read is left out: the stages' parameters are dependencies of their own.
    """
    loaded = set(json.loads((finished.folder.with_name("finished-loaded") / f"{stage}.json").read_text()))
    record = closure.load(finished.folder / "reports/code" / f"{stage}.json")
    parsers = [path.relative_to(ROOT).as_posix() for path in (ROOT / "stages/settings").glob("*.py")]
    reading = set().union(*(closure.closure(parser, {}, ROOT).code for parser in parsers))
    assert f"stages/{stage}.py" in loaded
    assert loaded - record.code.keys() - reading == set()
