"""Commands that are killed, meet another one or a full disk leave the old release or the new one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.releases import ledger
from serving.releases.release import release
from serving.releases.rollback import rollback
from serving.releases.store import Store
from serving.releases.switch import settle
from serving.triton.admin import Admin, administered
from serving.triton.names import Names
from stages.core.errors import UserError
from tests.support.project import ROOT, Clone
from tests.support.releases import live_answers, make_champion, served

pytestmark = pytest.mark.usefixtures("a_server")


KEEP = 3


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
    store, by_id = Store(after_two / "live"), {each.manifest.id: each for each in candidates}
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
            assert champion["files"] == dict(by_id[now].manifest.files), step
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
