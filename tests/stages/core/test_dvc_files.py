"""Altered bytes under DVC: following the advice of the message restores them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from serving.releases.candidate import from_champion
from stages.core.dvc_files import damaged, remedy
from stages.core.errors import UserError
from tests.support.project import Clone
from tests.support.releases import flipped


@pytest.fixture
def pushed(after_two: Path, tmp_path: Path) -> Clone:
    """A project with a champion that is also pushed to a remote."""
    project = Clone(after_two)
    for command in (("remote", "add", "--default", "away", str(tmp_path / "remote")), ("push", "champion/repository")):
        project.run(sys.executable, "-m", "dvc", "--quiet", *command)
    return project


def follow(project: Clone, error: str) -> None:
    """Run the commands that a message names, up to the first alternative."""
    for command in re.findall("`([^`]+)`", error.partition("; ")[0].partition(" or ")[0]):
        words = command.split()
        project.run(*([sys.executable, "-m", *words] if words[0] == "dvc" else words))


def network(project: Clone) -> Path:
    (path,) = (project.folder / "champion" / "repository").glob("*_network/1/model.onnx")
    return path


@pytest.mark.parametrize("where", ["copy", "cache"])
def test_following_the_advice_restores_altered_bytes(pushed, where):
    path = network(pushed)
    content = path.read_bytes()
    flipped(path)
    if where == "cache":
        (kept,) = [
            each
            for each in (pushed.folder / ".dvc" / "cache").rglob("*")
            if each.is_file() and each.read_bytes() == content
        ]
        flipped(kept)
        assert damaged(pushed.folder / "champion" / "repository") == [kept]
    with pytest.raises(UserError) as caught:
        from_champion(pushed.folder)
    assert ("rm -f" in str(caught.value)) == (where == "cache")
    follow(pushed, str(caught.value).partition(". ")[2])
    assert path.read_bytes() == content
    from_champion(pushed.folder)


def test_a_damaged_folder_listing_is_found(pushed):
    pointer = (pushed.folder / "champion" / "repository.dvc").read_text()
    (listing,) = [
        each for each in (pushed.folder / ".dvc" / "cache").rglob("*.dir") if each.parent.name + each.name in pointer
    ]
    flipped(listing)
    assert damaged(pushed.folder / "champion" / "repository") == [listing]


def test_the_advice_without_dvc_is_the_given_one(tmp_path):
    assert remedy(tmp_path / "repository", "restore it") == "restore it"
