"""What the command prints beside a verdict."""

from __future__ import annotations

import json

from flows import console


def test_warnings_of_the_validation_are_repeated(tmp_path, capsys):
    report = tmp_path / "validation.json"
    console.warn_again(report)  # of a project without one
    leak = "share of total that the sum fare + tip tells is 1, over 0.95"
    report.write_text(json.dumps({"warnings": [leak, *"abcdef"]}))
    console.warn_again(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"  data: {leak}"
    assert lines[-1] == f"  data: 2 more warnings: see {tmp_path / 'index.html'}" and len(lines) == 6
