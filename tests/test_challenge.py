"""The champion before the same samples: each way it can stand, and that its answers are those it was released with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from releases import flipped, shifted

from stages import challenge, params
from stages.arrays import open_split
from stages.schema import Schema


@pytest.fixture(scope="module")
def another(judged, tmp_path_factory):
    """A released model that is not the candidate."""
    return shifted(judged, tmp_path_factory.mktemp("another"), 2.0)


@pytest.fixture
def asked(finished, judged, another, tmp_path):
    """Where the champion in a folder stands, and what it answers, when the finished run's candidate challenges it."""
    shutil.copytree(another.repository, tmp_path / "repository")
    (tmp_path / "manifest.json").write_text(another.manifest.text)
    paths = {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}

    def ask(schema=None, candidate=judged.manifest):
        fitted, rows = Schema.load(paths["schema"]), open_split(paths["arrays"], "test").rows
        return challenge.ask(tmp_path / "manifest.json", candidate, schema or fitted, paths["table"], rows)

    ask.folder, ask.paths = tmp_path, paths
    return ask


def test_it_answers_every_test_sample_as_itself(asked, another, judged):
    standing, answers = asked()
    assert (standing.state, standing.champion) == ("answers", another.manifest.id)
    own = np.load(asked.paths["answers"] / "answers.npz")["probabilities"]
    assert answers["probabilities"].shape == own.shape
    assert (answers["probabilities"][:, 3] >= own[:, 3] - 1e-6).all()  # what `shifted` does
    assert not np.allclose(answers["probabilities"], own)


def test_none_yet(asked):
    (asked.folder / "manifest.json").write_text("{}\n")
    standing, answers = asked()
    assert (standing.state, standing.outcome, answers) == ("none", "no champion yet", {})


def test_the_candidate_itself_is_not_asked_twice(asked, another):
    shutil.rmtree(asked.folder / "repository")
    standing, answers = asked(candidate=another.manifest)
    assert (standing.state, answers) == ("itself", {})


@pytest.mark.parametrize("how", ["removed", "altered"])
def test_lost_bytes_are_told_with_the_remedy(asked, another, how):
    if how == "removed":
        shutil.rmtree(asked.folder / "repository")
    else:
        flipped(asked.folder / "repository" / another.names.network / "1" / "model.onnx")
    standing, answers = asked()
    assert (standing.state, answers) == ("lost", {})
    assert {"removed": "not here", "altered": "model.onnx has other bytes"}[how] in standing.outcome
    assert "`dvc pull champion/repository.dvc`" in standing.outcome


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda fitted: replace(fitted, features=()), "it needs the column 'image', of kind image"),
        (
            lambda fitted: replace(fitted, features=tuple(replace(column, kind="text") for column in fitted.features)),
            "it needs the column 'image', of kind image",
        ),
        (
            lambda fitted: replace(
                fitted, target=replace(fitted.target, fitted={"labels": list("0123456798"), "counts": [1] * 10})
            ),
            "its probabilities are of other labels",
        ),
    ],
)
def test_one_that_answers_another_question(asked, change, reason):
    standing, answers = asked(schema=change(Schema.load(asked.paths["schema"])))
    assert (standing.state, answers) == ("incompatible", {})
    assert reason in standing.outcome


def test_a_worse_candidate_is_refused_through_the_graph(done, judged):
    champion = done.folder / "champion"
    shutil.copytree(judged.repository, champion / "repository")
    (champion / "manifest.json").write_text(judged.manifest.text)
    done.params(train={"epochs": 2}, gate={"thresholds": {"accuracy": {"min": 0.5}}, "slices": {}})
    said = done.millrace("run", code=3)
    verdict = json.loads((done.folder / "reports" / "verdict.json").read_text())
    (refused,) = (each for each in verdict["criteria"] if not each["holds"])
    assert refused["name"] == "against the champion: accuracy" and refused["value"] < -0.02
    assert verdict["champion"] == f"{judged.manifest.id} answered 381 test samples"
    assert f"refused: {refused['reason']}" in said
