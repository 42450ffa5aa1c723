"""From a verdict that needs a person to an approved release, through the real commands."""

from __future__ import annotations

import json

import pytest

from serving.releases import approval
from serving.releases.store import Store
from serving.triton.names import Names
from stages.core.errors import Misuse
from tests.support.failing import failing

NAMES = Names("digits", "0123456789ab")


def judged(*reasons, release=NAMES.release):
    """Return a verdict that needs a person for these reasons."""
    criteria = [{"name": "accuracy", "holds": False, "reason": reason} for reason in reasons]
    return {"release": release, "verdict": "needs a person", "criteria": criteria}


def test_an_approval_holds_for_one_release_and_its_reasons(tmp_path):
    store = Store(tmp_path / "live")
    approval.approve(store, NAMES, judged("worse by 0.03", "too large"), "Ada", "a trial")

    def needed(verdict, release=NAMES.release):
        return approval.needed(approval.with_approval(store, release, verdict))

    assert not needed(judged("worse by 0.03", "too large"))
    assert not needed(judged("worse by 0.03"))
    assert needed(judged("worse by 0.30"))
    assert needed(judged("worse by 0.03", "too slow"))
    assert needed(judged("worse by 0.03", release="ba9876543210"), "ba9876543210")
    assert needed(judged("worse by 0.03"), "ba9876543210")


def test_a_verdict_on_another_release_is_not_approved(tmp_path):
    with failing(Misuse, "verdict-outdated", "ba9876543210", "0123456789ab"):
        approval.approve(Store(tmp_path / "live"), NAMES, judged("too large", release="ba9876543210"), "Ada", "a trial")


@pytest.mark.usefixtures("a_server")
def test_a_release_that_needs_a_person_waits_for_approval(done):
    done.params(gate={"thresholds": {"calibration_error": {"max": 0.0}}, "approval": ["calibration_error"]})
    output = done.millrace("run", code=4)
    assert "for a person: calibration_error is 0." in output and "`millrace approve --by NAME --reason WHY`" in output
    page = (done.folder / "reports" / "index.html").read_text()
    assert "Needs a person" in page and 'class="verdict person"' in page
    assert "a person must decide this" in done.millrace("release", code=3)
    assert "is blank" in done.millrace("approve", "--by", "Ada", "--reason", "", code=2)
    assert "accepted: calibration_error is 0." in done.millrace(
        "approve", "--by", "Ada", "--reason", "good enough for a trial"
    )
    done.millrace("release")
    assert json.loads((done.folder / "champion" / "verdict.json").read_text())["approved"]["by"] == "Ada"
    for command in ("status", "trace"):
        release = [json.loads((done.folder / "reports" / "verdict.json").read_text())["release"]] * (command == "trace")
        assert "Ada: good enough for a trial" in done.millrace(command, *release)
