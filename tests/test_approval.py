"""From a verdict that needs a person to a release that says who has answered for it, through the real commands."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("a_server")


def test_a_person_decides(done):
    done.params(gate={"thresholds": {"accuracy": {"min": 0.9999}}, "approval": ["accuracy"]})
    said = done.millrace("run", code=4)
    assert "for a person: accuracy is 0." in said and "`millrace approve --by NAME --reason WHY`" in said
    page = (done.folder / "reports" / "index.html").read_text()
    assert "Needs a person" in page and 'class="verdict person"' in page
    assert "is for a person to decide" in done.millrace("release", code=3)
    assert "is blank" in done.millrace("approve", "--by", "Ada", "--reason", "", code=2)
    assert "accepted: accuracy is 0." in done.millrace("approve", "--by", "Ada", "--reason", "good enough for a trial")
    done.millrace("release")
    assert json.loads((done.folder / "champion" / "verdict.json").read_text())["approved"]["by"] == "Ada"
    for command in ("status", "trace"):
        release = [json.loads((done.folder / "reports" / "verdict.json").read_text())["release"]] * (command == "trace")
        assert "Ada: good enough for a trial" in done.millrace(command, *release)
