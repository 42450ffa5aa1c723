"""The champion on the same test samples: each of its states, and that it answers as it was released."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.triton import sandbox
from serving.triton.launcher import running
from stages import challenge
from stages.core.errors import Late
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables import table
from stages.tables.arrays import open_split
from tests.support.line import FAST
from tests.support.releases import flipped, shifted, variant


@pytest.fixture(scope="module")
def another(judged, tmp_path_factory):
    """A released model that is not the candidate."""
    return shifted(judged, tmp_path_factory.mktemp("another"), 2.0)


@pytest.fixture
def challenged(finished, judged, another, tmp_path):
    """The state and the answers of a champion in a folder, challenged by the candidate of the finished run."""
    shutil.copytree(another.repository, tmp_path / "repository")
    (tmp_path / "manifest.json").write_text(another.manifest.text)
    paths = {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}

    def ask(schema=None, candidate=judged.manifest):
        fitted, rows = Schema.load(paths["schema"]), open_split(paths["arrays"], "test").rows
        return challenge.ask(tmp_path / "manifest.json", candidate, schema or fitted, paths["table"], rows)

    ask.folder, ask.paths = tmp_path, paths
    return ask


def test_the_champion_answers_every_test_sample(challenged, another, judged):
    state, answers = challenged()
    assert (state.state, state.champion) == ("answers", another.manifest.id)
    ours = np.load(challenged.paths["answers"] / "answers.npz")["probabilities"]
    assert answers["probabilities"].shape == ours.shape
    assert (answers["probabilities"][:, 3] >= ours[:, 3] - 1e-6).all()  # what `shifted` does
    assert not np.allclose(answers["probabilities"], ours)


def test_a_champion_with_nearly_equal_answers_is_compared(finished, judged, challenged, tmp_path):
    alike = shifted(judged, tmp_path / "alike", 1e-5)
    champion, paths = tmp_path / "champion", challenged.paths
    shutil.copytree(alike.repository, champion / "repository")
    (champion / "manifest.json").write_text(alike.manifest.text)
    stage = (paths[name] for name in ("manifest", "answers", "arrays", "schema", "table"))
    challenge.main(champion / "manifest.json", *stage, tmp_path / "challenge")
    assert json.loads((tmp_path / "challenge" / "challenge.json").read_text())["state"] == "answers"
    assert (tmp_path / "challenge" / "differences.png").stat().st_size > 0


def test_before_the_first_release_there_is_no_champion(challenged):
    (challenged.folder / "manifest.json").write_text("{}\n")
    state, answers = challenged()
    assert (state.state, state.outcome, answers) == ("none", "no champion yet", {})


def test_the_candidate_itself_is_not_served_again(challenged, another):
    shutil.rmtree(challenged.folder / "repository")
    state, answers = challenged(candidate=another.manifest)
    assert (state.state, answers) == ("itself", {})


@pytest.mark.parametrize("loss", ["removed", "altered"])
def test_a_champion_whose_bytes_are_lost_is_reported_with_the_remedy(challenged, another, loss):
    if loss == "removed":
        shutil.rmtree(challenged.folder / "repository")
    else:
        flipped(challenged.folder / "repository" / another.names.network / "1" / "model.onnx")
    state, answers = challenged()
    assert (state.state, answers) == ("lost", {})
    assert {"removed": "not here", "altered": "model.onnx has other bytes"}[loss] in state.outcome
    assert "`dvc pull champion/repository.dvc`" in state.outcome


def test_a_server_that_is_too_slow_is_an_error(challenged, monkeypatch):
    monkeypatch.setattr(sandbox, "running", partial(running, timeout_s=0.001))
    with pytest.raises(Late, match=r"tritonserver is not ready after 0\.001 s"):
        challenged()


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
def test_a_champion_with_another_schema_is_not_compared(challenged, change, reason):
    state, answers = challenged(schema=change(Schema.load(challenged.paths["schema"])))
    assert (state.state, answers) == ("incompatible", {})
    assert reason in state.outcome


def test_a_candidate_worse_than_the_champion_is_refused(done, judged):
    champion = done.folder / "champion"
    shutil.copytree(judged.repository, champion / "repository")
    (champion / "manifest.json").write_text(judged.manifest.text)
    done.params(**FAST)
    output = done.millrace("run", code=3)
    verdict = json.loads((done.folder / "reports" / "verdict.json").read_text())
    (refused,) = (each for each in verdict["criteria"] if not each["holds"])
    (differ,) = (each for each in verdict["criteria"] if each["name"] == "against the champion: disagreement")
    assert refused["name"] == "against the champion: accuracy" and refused["value"] < -0.02
    assert verdict["champion"] == f"{judged.manifest.id} answered 381 test samples"
    assert f"refused: {refused['reason']}" in output
    size = next(each for each in verdict["criteria"] if each["name"] == "size over the champion's")
    assert size["value"] == 1 and "latency over the champion's" in {each["name"] for each in verdict["criteria"]}
    ours, theirs = (
        np.load(done.folder / "reports" / by / "answers.npz")["probabilities"] for by in ("answers", "challenge")
    )
    assert differ["holds"] and differ["value"] == round((ours.argmax(1) != theirs.argmax(1)).mean(), 6) > 0.02
    page = (done.folder / "reports" / "index.html").read_text(encoding="utf-8")
    shown = page.partition("Where it differs from the champion")[2].partition("</section>")[0]
    assert 'alt="differences" src="data:image/png;base64,' in shown and f"{differ['value']:.4g}" in shown


def test_a_run_has_a_verdict_whatever_the_state_of_the_champion(done, judged, tmp_path):
    """The candidate itself, a champion of an unknown kind, and one without its bytes."""

    def of_another_kind(repository, names):
        path = repository / names.encode / "1" / "schema.json"
        path.write_text(path.read_text().replace('"image"', '"photo"'))

    champion = done.folder / "champion"
    strange = variant(judged, tmp_path / "strange", of_another_kind)
    for released, repository, code, outcome in (
        (judged.manifest, judged.repository, 0, f"{judged.manifest.id} is the champion itself"),
        (
            strange.manifest,
            strange.repository,
            0,
            "has another schema: it needs the column 'photo', of kind photo",
        ),
        (
            strange.manifest,
            None,
            3,
            "cannot be served, since its bytes are not here: `dvc pull champion/repository.dvc`",
        ),
    ):
        shutil.rmtree(champion / "repository", ignore_errors=True)
        (champion / "manifest.json").write_text(released.text + " " * code)
        if repository:
            shutil.copytree(repository, champion / "repository")
        output = done.millrace("run", code=code)
        assert (
            outcome in output
            and outcome in json.loads((done.folder / "reports" / "verdict.json").read_text())["champion"]
        )


def test_a_champion_that_is_lost_after_the_challenge_refuses(done, judged, another):
    champion = done.folder / "champion"
    shutil.copytree(another.repository, champion / "repository")
    (champion / "manifest.json").write_text(another.manifest.text)
    done.params(gate={"margins": {"accuracy": 1.0}, "slices": {}})
    assert "pass: release" in done.millrace("run")
    flipped(champion / "repository" / another.names.network / "1" / "model.onnx")
    done.params(gate={"p99_ms": 99.0})
    output = done.millrace("run", code=3)
    assert (
        f"refused: {another.manifest.id} can no longer be served" in output and "dvc pull champion/repository" in output
    )
    assert "`dvc repro --force --single-item measure`" in output
    flipped(champion / "repository" / another.names.network / "1" / "model.onnx")
    done.run("dvc", "repro", "--force", "--single-item", "measure")
    assert "pass: release" in done.millrace("run")
    for content, words in ((None, "is missing"), ("{", "is not JSON")):
        (champion / "verdict.json").unlink() if content is None else (champion / "verdict.json").write_text(content)
        output = done.millrace("run", code=2)
        assert f"champion/verdict.json {words}: `git checkout champion/verdict.json` restores it" in output


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x * np.float32(0.999)], ids=["same", "nearly"])
def test_the_sheet_of_a_champion_with_the_same_answers_is_empty(challenged, change):
    fitted, rows = Schema.load(challenged.paths["schema"]), open_split(challenged.paths["arrays"], "test").rows
    ours = np.load(challenged.paths["answers"] / "answers.npz")["probabilities"]
    theirs = {"probabilities": change(ours)}
    sheet = challenge.draw(fitted, challenged.paths["table"], rows, theirs, {"probabilities": ours})
    assert [text.get_text() for text in sheet.texts] == ["no differences"] and not sheet.axes


def test_the_sheet_of_a_number_target_without_differences_is_empty(tmp_path):
    schema = Schema((Column("x", "number", {}, {}),), Column("y", "target_number", {}, {"std": 1.0}))
    pq.write_table(pa.table({"x": [0.0, 1.0], "y": [0.0, 1.0]}), tmp_path / "table.parquet")
    ours = {"value": np.zeros((2, 1), np.float32), "interval": np.float32([[-1, 1]] * 2)}
    sheet = challenge.draw(schema, tmp_path / "table.parquet", np.arange(2), ours, ours)
    assert [text.get_text() for text in sheet.texts] == ["no differences"]


def test_the_sheet_shows_the_largest_differences_first(challenged, monkeypatch):
    fitted, rows = Schema.load(challenged.paths["schema"]), open_split(challenged.paths["arrays"], "test").rows
    ours = np.full((len(rows), 10), 0.01, np.float32)
    ours[:, 4] = 0.5
    theirs = ours.copy()
    theirs[7, 5], theirs[2, 5], theirs[300, 5], theirs[4, 6] = 0.6, 0.8, 0.7, 0.4
    drawn = {}
    monkeypatch.setattr(
        challenge.sample_sheet, "sample", lambda columns, values, axes: drawn.setdefault(axes, values["image"])
    )
    sheet = challenge.draw(
        fitted, challenged.paths["table"], rows, *({"probabilities": each} for each in (theirs, ours))
    )
    shown = [place.get_title().splitlines()[:2] for place in sheet.axes if place.get_title()]
    assert shown == [[f"champion: 5, {sure}", "this: 4, 0.5"] for sure in (0.8, 0.7, 0.6)]
    pictures = table.column(challenged.paths["table"], "image")
    assert list(drawn.values()) == [pictures[rows[i]] for i in (2, 300, 7)]
