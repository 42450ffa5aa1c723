"""The ledger and the order of releases do not depend on the clock, and invalid lines do no harm."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.releases import ledger
from serving.releases.release import release
from serving.releases.rollback import rollback
from serving.releases.store import Store
from tests.support.project import ROOT, Clone

AHEAD = "2099-01-01T00:00:00.000000+00:00"


def date_ahead(store: Store, release: str, *, counted: bool) -> None:
    """Date a release as if the clock had been ahead; not `counted`: without a number, as in earlier versions."""
    path = store.record(release) / "released"
    number = path.read_text().splitlines()[1:]
    path.write_text("\n".join([f"{AHEAD} digits", *(number if counted else [])]) + "\n")


@pytest.mark.parametrize("counted", [True, False])
def test_the_clock_does_not_decide_which_release_is_the_latest(after_two, candidates, counted):
    store, (first, second) = Store(after_two / "live"), (each.manifest.id for each in candidates[:2])
    date_ahead(store, first, counted=counted)
    assert store.kept("digits") == [second, first]
    assert store.predecessor("digits") == first
    rollback(after_two, store, "digits", None)
    assert store.current("digits") == first


@pytest.mark.parametrize("ledger_lost", [False, True])
def test_releases_of_earlier_versions_keep_their_order(after_two, candidates, ledger_lost):
    store, (first, second) = Store(after_two / "live"), (each.manifest.id for each in candidates[:2])
    for place, id in enumerate((first, second)):
        (store.record(id) / "released").write_text(f"2026-11-2{place}T00:00:00.000000+00:00 digits\n")
    if ledger_lost:
        store.ledger.unlink()
    else:
        date_ahead(store, first, counted=False)
    assert store.kept("digits") == [second, first]


def test_releases_are_numbered_on_where_the_ledger_is_lost(after_two, candidates, a_server):
    store, ids = Store(after_two / "live"), [each.manifest.id for each in candidates]
    for id in ids[:2]:
        date_ahead(store, id, counted=True)
    store.ledger.unlink()
    release(after_two, store, candidates[2], keep=2)
    assert store.kept("digits") == [ids[2], ids[1]]


@pytest.mark.parametrize("line", ["3", "[]", '"word"', "null", '{"event": "released"}', '{"a": ' * 5000, "\udcff"])
def test_an_invalid_line_does_not_disturb_commands(after_two, candidates, line):
    store = Store(after_two / "live")
    events = ledger.lines(store.ledger)
    with store.ledger.open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    assert ledger.lines(store.ledger) == events
    output = Clone(after_two).millrace("status")
    assert candidates[1].manifest.id in output


def test_an_event_with_other_fields_does_not_disturb_commands(after_two, candidates):
    store = Store(after_two / "live")
    for event in ("released", "rolled back", "approved"):
        ledger.append(store.ledger, event, by=3, reasons=[1])
    rollback(after_two, store, "digits", None)
    assert candidates[0].manifest.id in Clone(after_two).millrace("status")


def test_lines_that_a_full_disk_rejects_are_added_later(tmp_path):
    """A limit on the file's size stands for a full disk, in a process of its own."""
    code = """
import resource, signal, sys
from pathlib import Path
from serving.releases import ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, reports = Path(sys.argv[1]), []
ledger.append(path, "first")
size = path.stat().st_size
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, most))
journal = ledger.Journal(path, reports.append)
journal.append("second")
journal.append("third")
assert path.stat().st_size == size and len(reports) == 1, reports
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
journal.flush()
assert [line["event"] for line in ledger.lines(path)] == ["first", "second", "third"]
assert path.read_bytes().count(b"\\n") == 3
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "ledger.jsonl"], cwd=ROOT, check=True)


def test_a_folder_that_cannot_be_written_is_reported_once(tmp_path: Path):
    reports: list[str] = []
    journal = ledger.Journal(tmp_path / "missing" / "ledger.jsonl", reports.append)
    journal.append("first")
    journal.append("second")
    assert len(reports) == 1 and os.strerror(errno.ENOENT) in reports[0]
    (tmp_path / "missing").mkdir()
    journal.flush()
    assert len(ledger.lines(tmp_path / "missing" / "ledger.jsonl")) == 2
