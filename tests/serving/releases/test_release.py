"""Releases and rollbacks on the real server: what is live is the old or the new, and answers as it was judged."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
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
from serving.releases.rollback import rollback
from serving.releases.store import Store
from serving.releases.switch import settle
from serving.triton.admin import Admin, administered
from serving.triton.names import Names
from stages.core.errors import Misuse, Refused, UserError
from stages.settings import params
from tests.support.project import ROOT, Clone
from tests.support.releases import flipped, golden_answers, live_answers, make_champion, relabelled, served, variant

pytestmark = pytest.mark.usefixtures("a_server")

KEEP = 3


@pytest.fixture
def root(empty: Path, tmp_path: Path) -> Path:
    """A copy of the empty project."""
    return shutil.copytree(empty, tmp_path / "root")


@pytest.fixture
def store(root: Path) -> Store:
    """Its releases: none yet."""
    return Store(root / "live")


def test_an_unfinished_run_has_nothing_to_release(finished, tmp_path):
    """DVC removes a stage's outputs before it runs; the verdict of the run before is still there."""
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


def test_releases_and_rollbacks_lose_no_request_and_mix_no_answers(after_two, candidates):
    store = Store(after_two / "live")
    a, b, c = (each.manifest.id for each in candidates)
    known = {each.manifest.id: np.array(each.golden["probabilities"], np.float32) for each in candidates}
    stop, faults, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            try:
                id, answers = golden_answers(endpoint.grpc, candidates[0])
                np.testing.assert_allclose(answers, known[id], atol=1e-5)
                seen.add(id)
            except Exception as error:
                faults.append(error)
                return

    with served(store) as endpoint:
        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            before = golden_answers(endpoint.grpc, candidates[0])
            assert release(after_two, store, candidates[2], keep=KEEP).live
            assert live_answers(endpoint.grpc, candidates) == c
            with administered(endpoint.grpc, endpoint.admin_key) as admin:
                assert [each.names.candidate in admin.loaded() for each in candidates] == [False, True, True]
            assert rollback(after_two, store, "digits", None).release == b
            again = golden_answers(endpoint.grpc, candidates[0])
            assert again[0] == before[0] == b
            np.testing.assert_allclose(again[1], before[1], atol=1e-6)
            assert rollback(after_two, store, "digits", None).release == a
            assert live_answers(endpoint.grpc, candidates) == a
            with pytest.raises(UserError, match="no earlier release"):
                rollback(after_two, store, "digits", None)
            assert rollback(after_two, store, "digits", c).release == c
            assert live_answers(endpoint.grpc, candidates) == c
        finally:
            stop.set()
            for asker in askers:
                asker.join()
    assert not faults, faults[:3]
    assert seen == {a, b, c}
    champion = json.loads((after_two / "champion" / "manifest.json").read_text())
    assert champion["files"] == dict(candidates[2].manifest.files)


def test_a_rollback_gives_exactly_the_same_numbers(after_two, candidates):
    """With nobody else asking, the very same numbers."""
    store = Store(after_two / "live")
    rollback(after_two, store, "digits", None)
    with served(store) as endpoint:
        _, first = golden_answers(endpoint.grpc, candidates[0])
        rollback(after_two, store, "digits", candidates[1].manifest.id)
        rollback(after_two, store, "digits", None)
        _, again = golden_answers(endpoint.grpc, candidates[0])
    assert (first == again).all()


def test_an_unknown_release_is_reported_with_the_existing_ones(after_two, candidates):
    store = Store(after_two / "live")
    with pytest.raises(UserError, match=f"no release 0123456789ab here; .*{candidates[0].manifest.id}"):
        rollback(after_two, store, "digits", "0123456789ab")
    assert store.current("digits") == candidates[1].manifest.id


def test_a_release_that_is_no_longer_kept_is_removed(after_two, candidates):
    store = Store(after_two / "live")
    done = release(after_two, store, candidates[2], keep=2)
    assert done.notices == (f"{candidates[0].manifest.id} is no longer kept",)
    assert store.kept("digits") == [candidates[2].manifest.id, candidates[1].manifest.id]
    assert not list(store.repository.glob(f"*{candidates[0].manifest.id}*"))
    with pytest.raises(UserError, match="there is no release"):
        rollback(after_two, store, "digits", candidates[0].manifest.id)


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


def test_an_altered_release_is_never_rolled_back_to(after_two, candidates):
    store = Store(after_two / "live")
    flipped(store.repository / candidates[0].names.network / "1" / "model.onnx")
    with pytest.raises(UserError, match=r"files of release \w+ were altered: .*model\.onnx has other bytes"):
        rollback(after_two, store, "digits", None)
    assert store.current("digits") == candidates[1].manifest.id


def test_an_altered_manifest_is_rejected(after_two, candidates):
    store = Store(after_two / "live")
    path = store.record(candidates[0].manifest.id) / "manifest.json"
    path.write_text(path.read_text().replace("a", "b", 1))
    with pytest.raises(UserError, match="manifest"):
        rollback(after_two, store, "digits", None)


def test_stray_files_are_moved_out_of_the_repository(after_two, candidates):
    store = Store(after_two / "live")
    part = store.repository / candidates[0].names.network
    for stray in ("2.tmp", "007", "12345678901234567890"):
        shutil.copytree(part / "1", part / stray)
        (store.repository / stray).mkdir()
    with served(store) as endpoint:
        assert rollback(after_two, store, "digits", None).live
        assert live_answers(endpoint.grpc, candidates) == candidates[0].manifest.id
    assert sorted(path.name for path in part.iterdir()) == ["1", "config.pbtxt"]
    assert len(list((store.folder / "strays").iterdir())) == 3


def test_a_cut_off_line_of_the_ledger_does_not_spoil_the_next(after_two, candidates):
    store = Store(after_two / "live")
    with store.ledger.open("ab") as file:
        file.write(b'{"time": "2026-11-21T00:0')
    rollback(after_two, store, "digits", None)
    events = [line["event"] for line in ledger.lines(store.ledger)]
    assert events == ["released", "released", "rolled back"]


def test_a_lost_ledger_loses_no_release(after_two, candidates):
    store = Store(after_two / "live")
    kept = store.kept("digits")
    store.ledger.unlink()
    rollback(after_two, store, "digits", None)
    assert store.current("digits") == candidates[0].manifest.id
    assert store.kept("digits") == kept and not store.faults(kept[0]) and not store.faults(kept[1])


def test_a_rollback_restores_the_statistics_of_the_data(after_two, judged, candidates):
    store, kept = Store(after_two / "live"), after_two / "champion" / "statistics.json"
    assert kept.read_text() == judged.statistics and json.loads(judged.statistics)["label"]
    (store.record(candidates[0].manifest.id) / "statistics.json").unlink()  # as before there were any
    rollback(after_two, store, "digits", None)
    assert kept.read_text() == "{}\n"
    assert from_champion(after_two).statistics == "{}\n"
    rollback(after_two, store, "digits", candidates[1].manifest.id)
    assert kept.read_text() == judged.statistics
    kept.unlink()  # a champion that git has of older days
    assert from_champion(after_two).statistics == "{}\n"


@pytest.mark.parametrize("lost", ["golden.json", "verdict.json", "manifest.json"])
@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_damaged_record_is_reported_and_restored_from_git(after_two, candidates, lost, how):
    store, live = Store(after_two / "live"), candidates[1].manifest.id
    path = store.record(live) / lost
    whole = path.read_text()
    path.unlink() if how == "removed" else path.write_text("{")
    rollback(after_two, store, "digits", None)
    with pytest.raises(UserError, match=rf"{lost}.* --from-champion"):
        rollback(after_two, store, "digits", live)
    make_champion(after_two, candidates[1])
    release(after_two, store, from_champion(after_two), keep=KEEP)
    assert store.current("digits") == live and path.read_text() == whole


def test_a_lost_public_config_is_written_again(after_two, candidates):
    store = Store(after_two / "live")
    (store.repository / "digits" / "config.pbtxt").unlink()
    rollback(after_two, store, "digits", None)
    assert store.current("digits") == candidates[0].manifest.id


def test_the_next_command_commits_what_a_killed_one_made_live(after_two, candidates):
    store, project = Store(after_two / "live"), Clone(after_two)
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "two releases")
    rollback(after_two, store, "digits", None)  # killed before its commit
    assert "it is live already" in project.millrace("rollback", "--to", candidates[0].manifest.id)
    assert not project.run("git", "status", "--porcelain", "champion")
    assert project.run("git", "log", "-1", "--format=%s").strip() == f"Release {candidates[0].manifest.id} is live"


def test_a_release_that_is_judged_again_has_its_new_verdict(after_two, candidates):
    store = Store(after_two / "live")
    refused = {**candidates[0].verdict, "verdict": "refuse"}
    release(after_two, store, replace(candidates[0], verdict=refused), keep=KEEP, override="we know")
    assert store.read(candidates[0].manifest.id, "verdict.json")["verdict"] == "refuse"
    assert json.loads((after_two / "champion" / "verdict.json").read_text())["verdict"] == "refuse"


def test_two_commands_at_once_are_refused(after_two):
    code = (
        "import sys; from pathlib import Path; from serving.releases.store import Store\n"
        "with Store(Path('live')).writing('a release'): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=after_two, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=-1, stdout=-1, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=f"at work here already .process {other.pid}."):
            rollback(after_two, Store(after_two / "live"), "digits", None)
        other.kill()  # a lock ends with its holder
    assert rollback(after_two, Store(after_two / "live"), "digits", None)


def test_a_server_that_dies_at_the_switch_leaves_the_old_release(after_two, candidates, monkeypatch):
    store, real = Store(after_two / "live"), Store.switch

    def fatal(self: Store, names: Names) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(endpoint.process.pid, signal.SIGKILL)
        endpoint.process.wait()
        real(self, names)

    with served(store) as endpoint:
        monkeypatch.setattr(Store, "switch", fatal)
        with pytest.raises(UserError, match="cannot load digits"):
            release(after_two, store, candidates[2], keep=KEEP)
        monkeypatch.undo()
    with store.writing("the next command"):
        settle(after_two, store, None)
    assert store.current("digits") == candidates[1].manifest.id
    assert store.kept("digits") == [candidates[1].manifest.id, candidates[0].manifest.id]
    assert not list(store.repository.glob(f"*{candidates[2].manifest.id}*"))


@pytest.mark.parametrize("doing", ["release", "rollback"])
def test_a_command_killed_at_any_step_leaves_the_old_or_the_new_release(after_two, candidates, tmp_path, doing):
    """Before each thing that the command does to files, to the server, to DVC; then the next command begins."""
    store, known = Store(after_two / "live"), {each.manifest.id: each for each in candidates}
    a, b, c = (each.names for each in candidates)
    other, described = (c, tmp_path / "candidate.json") if doing == "release" else (a, "")
    fields = {"repository": str(candidates[2].repository), "manifest": candidates[2].manifest.text}
    fields |= {"verdict": dict(candidates[2].verdict), "golden": dict(candidates[2].golden)}
    (tmp_path / "candidate.json").write_text(json.dumps(fields))
    kept = shutil.copytree(after_two, tmp_path / "kept")
    command = [sys.executable, str(ROOT / "tests/support/kill_steps.py"), str(after_two)]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        served(store) as endpoint,
        administered(endpoint.grpc, endpoint.admin_key) as admin,
        subprocess.Popen(command, env=surroundings, stdin=-1, stdout=-1, text=True) as killer,
    ):
        for step in itertools.count(1):
            print(step, described, file=killer.stdin, flush=True)
            ended = killer.stdout.readline()
            assert ended in ("killed\n", "ended\n"), ended
            assert live_answers(endpoint.grpc, candidates) in (b.release, other.release), step
            if ended == "ended\n":
                break
            with store.writing("the next command"):
                settle(after_two, store, admin)
            now = live_answers(endpoint.grpc, candidates)
            assert now in (b.release, other.release) and store.current("digits") == now, step
            assert ledger.live(ledger.lines(store.ledger), "digits") == now, step
            champion = json.loads((after_two / "champion" / "manifest.json").read_text())
            assert champion["files"] == dict(known[now].manifest.files), step
            assert store.kept("digits") == [each.release for each in (c, b, a) if store.record(each.release).exists()]
            assert not store.faults(now) and not store.faults(b.release), step
            _reset(after_two, kept, store, admin, b, c)
        assert live_answers(endpoint.grpc, candidates) == other.release
        killer.stdin.close()
    assert step > 15


def _reset(root: Path, kept: Path, store: Store, admin: Admin, old: Names, new: Names) -> None:
    """As it was before the command: the old one live, the new one unknown."""
    with store.writing("a reset"):
        store.switch(old)
        admin.load(old.public)
        admin.unload(new.candidate)
        store.drop(new)
        shutil.copy(kept / "live" / "ledger.jsonl", store.ledger)
        shutil.rmtree(root / "champion")
        shutil.copytree(kept / "champion", root / "champion")


@pytest.mark.parametrize(
    ("options", "message"), [("size=2m", "free some space"), ("size=16m,nr_inodes=200", "the disk is full")]
)
def test_a_full_disk_leaves_the_old_release(after_two, candidates, tmp_path, options, message):
    """No bytes are left, or no files may be added, on a file system of its own."""
    live, new = after_two / "live", candidates[2]
    kept = live.rename(tmp_path / "kept")
    live.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", live], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        shutil.copytree(kept, live, dirs_exist_ok=True)
        make_champion(after_two, new)
        store, project = Store(live), Clone(after_two)
        before = sorted(store.repository.rglob("*"))
        fill = live / "fill"
        fill.mkdir()
        _fill(fill)
        output = project.millrace("release", "--from-champion", code=1)
        assert message in output and len(output.splitlines()) == 1
        assert store.current("digits") == candidates[1].manifest.id == store.kept("digits")[0]
        assert sorted(store.repository.rglob("*")) == before and not store.faults(candidates[1].manifest.id)
        assert not (live / "incoming").exists()
        shutil.rmtree(fill)
        project.millrace("release", "--from-champion")
        assert store.current("digits") == new.manifest.id
    finally:
        subprocess.run(["umount", "--lazy", live], check=True)


def _fill(folder: Path) -> None:
    """Until only a little room is left."""
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (folder / str(number)).write_bytes(bytes(4096))
    for number in range(8):
        (folder / str(number)).unlink()


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
