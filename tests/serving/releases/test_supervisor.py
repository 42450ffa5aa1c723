"""`millrace serve` answers again after a worker or the server dies or hangs, or a file is altered."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from serving.releases import ledger
from serving.releases.store import Store
from serving.triton import processes
from tests.support.line import free_ports
from tests.support.project import Clone, until
from tests.support.releases import flipped, golden_answers, live_answers
from tests.support.supervised import answering, options, serving

pytestmark = pytest.mark.usefixtures("a_server")


def stubs(process: subprocess.Popen[str], model: str) -> list[psutil.Process]:
    """Return the workers of a model on a server."""
    family = processes.family(process.pid)
    return [psutil.Process(each.pid) for each in processes.workers(family, model)]


def events(root: Path) -> list[str]:
    return [line["event"] for line in ledger.lines(Store(root / "live").ledger)]


def test_a_hung_worker_is_replaced(after_two, candidates):
    live = candidates[1]
    with serving(after_two) as (process, address):
        (stub,) = stubs(process, live.names.encode)
        stub.send_signal(signal.SIGSTOP)
        until(lambda: "healed" in events(after_two) or "restarted" in events(after_two))
        until(answering(address, candidates, live.manifest.id))


def test_a_dead_server_is_restarted(after_two, candidates):
    with serving(after_two) as (process, address):
        (server,) = [
            each for each in psutil.Process(process.pid).children(recursive=True) if each.name() == "tritonserver"
        ]
        server.kill()
        until(lambda: "restarted" in events(after_two))
        until(answering(address, candidates, candidates[1].manifest.id))


def test_a_second_server_on_the_same_store_is_refused(after_two):
    with serving(after_two) as (process, _):
        output = Clone(after_two).millrace("serve", *options(free_ports(3)), code=1)
        assert f"a server is at work here already (process {process.pid})" in output


def test_the_same_release_is_live_after_a_restart(after_two, candidates):
    for _ in range(2):
        with serving(after_two) as (_, address):
            assert live_answers(address, candidates) == candidates[1].manifest.id


def test_altered_files_are_restored_from_the_champion(after_two, candidates):
    store, live = Store(after_two / "live"), candidates[1]
    flipped(store.repository / live.names.network / "1" / "model.onnx")
    with serving(after_two) as (_, address):
        assert live_answers(address, candidates) == live.manifest.id
    assert not store.faults(live.manifest.id)


def test_the_previous_release_stands_in_for_an_altered_one(after_two, candidates):
    store, live = Store(after_two / "live"), candidates[1]
    champion = after_two / "champion" / "repository"
    for folder in (store.repository, champion):
        flipped(folder / live.names.network / "1" / "model.onnx")
    with serving(after_two) as (_, address):
        assert live_answers(address, candidates) == candidates[0].manifest.id
        assert "standing in" in events(after_two)
    flipped(champion / live.names.network / "1" / "model.onnx")  # intact again
    with serving(after_two) as (_, address):
        assert live_answers(address, candidates) == live.manifest.id


def test_administration_needs_the_key(after_two, candidates):
    from tritonclient import grpc, http

    key = Store(after_two / "live").folder / "key"
    key.write_text("f" * 32)
    key.chmod(0o644)
    with serving(after_two) as (_, address):
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.read_text() != "f" * 32  # somebody may have read that one
        server = json.loads((after_two / "live" / "server.json").read_text())
        for module, where in ((grpc, address), (http, server["http"])):
            with module.InferenceServerClient(where) as client:
                for call in (
                    lambda client=client: client.load_model("digits"),
                    lambda client=client: client.unload_model("digits"),
                    lambda client=client: client.load_model("../outside"),
                    lambda client=client: client.load_model(
                        "new", config='{"backend": "python"}', files={"file:1/model.py": b"import os"}
                    ),
                    lambda client=client: client.get_system_shared_memory_status(),
                ):
                    with pytest.raises(Exception, match=r"restricted|403|404"):
                        call()
        assert live_answers(address, candidates) == candidates[1].manifest.id
    assert not (after_two / "live" / "server.json").exists()


def test_the_announcement_and_the_key_are_restored(after_two, candidates):
    live = after_two / "live"
    with serving(after_two) as (_, address):
        key = (live / "key").read_text()
        for name in ("server.json", "key"):
            (live / name).unlink()
        until(lambda: (live / "server.json").exists() and (live / "key").exists() and (live / "key").read_text() == key)
        output = Clone(after_two).millrace("rollback")
        assert f"release {candidates[0].manifest.id} answers" in output
        assert live_answers(address, candidates) == candidates[0].manifest.id


def test_a_server_with_another_release_than_the_store_is_corrected(after_two, candidates):
    """This happens where a command finds no server because the server is still starting."""
    store, old = Store(after_two / "live"), candidates[0].names
    with serving(after_two) as (_, address):
        with store.writing("a switch"):
            store.switch(old)
        until(answering(address, candidates, old.release))


@pytest.mark.parametrize("stray", ["2.tmp", "007", "99999999999999999999"])
def test_stray_files_next_to_the_public_config_do_not_stop_the_server(after_two, candidates, stray):
    (after_two / "live" / "repository" / "digits" / stray).mkdir()
    with serving(after_two) as (_, address):
        assert live_answers(address, candidates) == candidates[1].manifest.id


def test_the_commands_report_the_state(after_two, candidates, empty):
    project = Clone(after_two)
    a, b = (each.manifest.id for each in candidates[:2])
    with serving(after_two) as (_, address):
        assert re.search(rf"release {a} answers, after {b}", project.millrace("rollback", "--reason", "too slow"))
        assert golden_answers(address, candidates[0])[0] == a
        output = project.millrace("status")
        for word in (address, a, "rolled back", "too slow", "pass"):
            assert word in output
        assert project.run("git", "log", "--format=%s", "-1").strip() == f"Roll back to {a}"
    assert "none is running" in project.millrace("status")
    nothing = Clone(empty)
    assert "`millrace release` does that" in nothing.millrace("serve", code=2)
    assert "`millrace release` does that" in nothing.millrace("rollback", code=2)
    assert "`millrace run` makes one" in nothing.millrace("release", code=2)
