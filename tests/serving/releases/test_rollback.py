"""Rollbacks on the real server: they give the same answers, lose no request, and need unaltered files."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest

from serving.releases import ledger
from serving.releases.candidate import from_champion
from serving.releases.release import release
from serving.releases.rollback import rollback
from serving.releases.store import Store
from serving.triton.admin import administered
from stages.core.errors import UserError
from tests.support.project import Clone
from tests.support.releases import flipped, golden_answers, live_answers, make_champion, served

pytestmark = pytest.mark.usefixtures("a_server")


KEEP = 3


def test_releases_and_rollbacks_lose_no_request_and_mix_no_answers(after_two, candidates):
    store = Store(after_two / "live")
    a, b, c = (each.manifest.id for each in candidates)
    expected = {each.manifest.id: np.array(each.golden["probabilities"], np.float32) for each in candidates}
    stop, faults, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            try:
                id, answers = golden_answers(endpoint.grpc, candidates[0])
                np.testing.assert_allclose(answers, expected[id], atol=1e-5)
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
