"""Releases on the real server: which are refused, and that the old release answers where the new one cannot."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from serving.releases import ledger
from serving.releases.approval import approve
from serving.releases.candidate import exported, from_champion
from serving.releases.release import release
from serving.releases.store import Store
from serving.triton.names import Names
from stages.core.errors import Misuse, Refused, UserError
from stages.settings import params
from tests.support.project import Clone
from tests.support.releases import flipped, live_answers, relabelled, served, variant

pytestmark = pytest.mark.usefixtures("a_server")


KEEP = 3


@pytest.fixture
def root(empty: Path, tmp_path: Path) -> Path:
    """A copy of the empty project."""
    return shutil.copytree(empty, tmp_path / "root")


@pytest.fixture
def store(root: Path) -> Store:
    """Its store, without a release."""
    return Store(root / "live")


def test_an_unfinished_run_has_nothing_to_release(finished, tmp_path):
    """DVC removes a stage's outputs before it runs, but the verdict of the run before is still there."""
    paths = {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}
    with pytest.raises(Misuse, match="the exported model has no verdict yet: `millrace run` makes one"):
        exported({**paths, "answers": tmp_path / "gone"})


def test_a_release_without_a_server_is_served_by_the_next_one(root, store, judged):
    done = release(root, store, judged, keep=KEEP)
    assert not done.live and done.before is None
    assert store.current("digits") == judged.manifest.id
    assert [line["event"] for line in ledger.lines(store.ledger)] == ["released"]
    assert json.loads((root / "champion" / "manifest.json").read_text())["files"]
    assert (root / "champion" / "repository.dvc").exists()
    assert release(root, store, judged, keep=KEEP).notices == ("it is live already",)
    with served(store) as endpoint:
        assert live_answers(endpoint.grpc, [judged]) == judged.manifest.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"verdict": {"verdict": "refuse", "criteria": [{"holds": False, "reason": "accuracy is low"}]}},
            "accuracy is low",
        ),
        ({"verdict": {"release": "0123456789ab"}}, "the verdict is on 0123456789ab"),
        ({"host": {"cpu": "another"}}, "timed on another host"),
    ],
)
def test_a_verdict_that_is_not_a_pass_refuses_the_release(root, store, judged, change, message):
    verdict = {**judged.verdict, **change.get("verdict", {})}
    refused = replace(judged, verdict=verdict, host=change.get("host", judged.host))
    with pytest.raises(Refused, match=message):
        release(root, store, refused, keep=KEEP)
    assert store.current("digits") is None and not list(store.repository.iterdir())
    (line,) = ledger.lines(store.ledger)
    assert line["event"] == "refused" and message in line["reasons"][0]
    release(root, store, refused, keep=KEEP, override="the customer waits")
    assert ledger.lines(store.ledger)[-1]["override"] == "the customer waits"


def test_a_release_that_needs_a_person_is_refused_until_approved(empty, judged, tmp_path):
    root = shutil.copytree(empty, tmp_path / "root")
    store, failed = Store(root / "live"), {**judged.verdict["criteria"][0], "holds": False, "reason": "0.9 is too low"}
    asking = replace(judged, verdict={**judged.verdict, "verdict": "needs a person", "criteria": [failed]})
    with pytest.raises(Refused, match=r"0\.9 is too low; a person must decide this: `millrace approve"):
        release(root, store, asking, keep=KEEP)
    for by, reason in (("", "why"), ("Ada", " ")):
        with pytest.raises(Misuse, match="is blank"):
            approve(store, asking.names, asking.verdict, by, reason)
    assert approve(store, asking.names, asking.verdict, "Ada", "seen by hand") == ["0.9 is too low"]
    worse = {**asking.verdict, "criteria": [failed, {**failed, "reason": "0.8 is too low"}]}
    other = {**asking.verdict, "release": "0123456789ab"}
    for not_approved in (worse, other, {**asking.verdict, "verdict": "refuse"}):
        with pytest.raises(Refused):
            release(root, store, replace(asking, verdict=not_approved), keep=KEEP)
    release(root, store, asking, keep=KEEP)
    approval = json.loads((root / "champion" / "verdict.json").read_text())["approved"]
    assert (approval["by"], approval["reason"]) == ("Ada", "seen by hand")
    with pytest.raises(Misuse, match="'pass': `millrace release` needs no approval"):
        approve(store, judged.names, judged.verdict, "Ada", "why")


@pytest.mark.parametrize(
    ("labels", "message"),
    [(lambda old: old[:-1], "the classes 9 are gone"), (lambda old: old[::-1], "the classes have another order")],
)
def test_a_release_that_breaks_callers_is_refused(after_two, candidates, tmp_path, labels, message):
    store = Store(after_two / "live")
    other = replace(variant(candidates[2], tmp_path, relabelled(labels)))
    with pytest.raises(Refused, match=message):
        release(after_two, store, other, keep=KEEP)
    assert store.current("digits") == candidates[1].manifest.id
    assert message in release(after_two, store, other, keep=KEEP, breaking=True).notices[0]


def test_an_added_class_is_reported(after_two, candidates, tmp_path):
    other = variant(candidates[2], tmp_path, relabelled(lambda old: [*old, "ten"]))
    done = release(after_two, Store(after_two / "live"), other, keep=KEEP)
    assert done.notices[0] == "probabilities: new classes ten"


def truncated(repository: Path, names: Names) -> None:
    path = repository / names.network / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def not_a_number(repository: Path, names: Names) -> None:
    path = repository / names.network / "1" / "model.onnx"
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), bias.name))
    path.write_bytes(model.SerializeToString(deterministic=True))


def other_golden_rows(repository: Path, names: Names) -> None:
    path = repository / names.encode / "1" / "golden.json"
    golden = json.loads(path.read_text())
    path.write_text(json.dumps(golden | {"sha256": "0" * 64}))


def biased(repository: Path, names: Names) -> None:
    path = repository / names.network / "1" / "model.onnx"
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.eye(10, dtype=np.float32)[0], bias.name))
    path.write_bytes(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncated, "cannot load"),
        (other_golden_rows, "golden rows are encoded differently"),
        (not_a_number, "golden answers"),
        (biased, "golden answers"),
    ],
)
def test_a_candidate_that_does_not_answer_leaves_the_old_release(after_two, candidates, tmp_path, change, message):
    store, old = Store(after_two / "live"), candidates[1].manifest.id
    bad = variant(candidates[2], tmp_path, change)
    with served(store) as endpoint:
        with pytest.raises(UserError, match=message):
            release(after_two, store, bad, keep=KEEP)
        assert live_answers(endpoint.grpc, candidates) == old
    assert store.current("digits") == old
    assert not list(store.repository.glob(f"*{bad.manifest.id}*"))
    assert json.loads((after_two / "champion" / "manifest.json").read_text())["files"] == candidates[1].manifest.files


def test_altered_files_are_never_released(root, store, judged, tmp_path):
    for name, alter in (
        ("1/model.onnx", flipped),
        ("1/probabilities.labels.txt", lambda path: path.write_text("0\n1\n")),
        ("config.pbtxt", lambda path: path.write_text(path.read_text() + "\n")),
    ):
        repository = shutil.copytree(judged.repository, tmp_path / name.replace("/", "-"))
        alter(repository / judged.names.network / name)
        with pytest.raises(UserError, match="other bytes"):
            release(root, store, replace(judged, repository=repository), keep=KEEP)
    assert store.names() == []


def test_a_release_that_is_judged_again_has_its_new_verdict(after_two, candidates):
    store = Store(after_two / "live")
    refused = {**candidates[0].verdict, "verdict": "refuse"}
    release(after_two, store, replace(candidates[0], verdict=refused), keep=KEEP, override="we know")
    assert store.read(candidates[0].manifest.id, "verdict.json")["verdict"] == "refuse"
    assert json.loads((after_two / "champion" / "verdict.json").read_text())["verdict"] == "refuse"


def test_another_host_releases_the_champion_of_git_and_dvc(after_two, candidates, tmp_path):
    here = Clone(after_two)
    dvc = (sys.executable, "-m", "dvc")
    here.run(*dvc, "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    here.run("git", "add", "-A")
    here.run("git", "commit", "-qm", "released")
    here.run(*dvc, "push", "-q")
    there = Clone(tmp_path / "there")
    here.run("git", "clone", "-q", str(after_two), str(there.folder))
    there.run(*dvc, "pull", "-q", "champion/repository.dvc")
    store = Store(there.folder / "live")
    done = release(there.folder, store, from_champion(there.folder), keep=KEEP)
    assert done.release == candidates[1].manifest.id
    with served(store) as endpoint:
        assert live_answers(endpoint.grpc, candidates) == candidates[1].manifest.id
    flipped(next((there.folder / "champion" / "repository").rglob("model.onnx")))
    with pytest.raises(UserError, match="other bytes"):
        from_champion(there.folder)
