"""The benchmarks' copies of the project are complete."""

from __future__ import annotations

from benchmarks import workspace
from serving.triton import manifest


def test_a_copy_of_the_project_has_a_complete_champion(after_two, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "ROOT", after_two)
    monkeypatch.setattr(workspace, "PARTS", ("champion", "dvc.yaml", "params.yaml"))
    copy = workspace.project(tmp_path / "copy")
    manifest.check(copy / "champion" / "repository", manifest.load(copy / "champion" / "manifest.json"))
