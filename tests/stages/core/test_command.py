"""The paths of a stage's command: by name, in order, or those of dvc.yaml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT, environment

STAGE = """
from pathlib import Path
from stages.core import command

def main(data: Path, table: Path, sound_rows: Path) -> None:
    \"\"\"Print the paths.\"\"\"
    print(data, table, sound_rows)

if __name__ == "__main__":
    command.run(main)
"""
GRAPH = "vars: [{paths: {table: t.parquet, sound_rows: rows.csv}}]\nstages: {show: {cmd: python -m show}}\n"


def show(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "show.py", *words]
    variables = environment(ROOT)
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "show.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text("data: {path: data/raw/x}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ([], "data/raw/x t.parquet rows.csv"),
        (["--table", "other"], "data/raw/x other rows.csv"),
        (["--sound-rows=a b"], "data/raw/x t.parquet a b"),
        (["one"], "one t.parquet rows.csv"),
        (["one", "two", "--sound-rows", "three"], "one two three"),
    ],
)
def test_paths_are_given_by_name_or_in_order_or_are_those_of_the_graph(
    folder: Path, words: list[str], paths: str
) -> None:
    result = show(folder, *words)
    assert (result.returncode, result.stdout) == (0, f"{paths}\n"), result.stderr


@pytest.mark.parametrize("words", [["1", "2", "3", "4"], ["--tabel", "x"]])
def test_wrong_arguments_exit_with_2(folder: Path, words: list[str]) -> None:
    result = show(folder, *words)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_outside_a_project_every_path_must_be_given(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(STAGE)
    assert show(tmp_path, "a", "b").returncode == 2
    assert show(tmp_path, "a", "b", "c").stdout == "a b c\n"
