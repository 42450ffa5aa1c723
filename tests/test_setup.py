"""What a machine must have, and the words for what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

CHECK = ROOT / "serving" / "runtime" / "check.py"


def pins(path: Path) -> dict[str, str]:
    """Name and version of each line of a lock file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_an_interpreter_with_its_library_is_found():
    said = subprocess.run([sys.executable, CHECK], capture_output=True, text=True, check=False)
    if said.returncode:
        pytest.skip(f"this machine has none: {said.stderr.strip()}")
    assert Path(said.stdout.strip()).exists()


def test_without_one_the_remedy_is_named(tmp_path):
    code = f"import sys; sys.executable = '/nowhere'; sys.path.insert(0, {str(CHECK.parent)!r}); import check"
    code += "; check.VERSIONS = ('3.99',); sys.exit(check.main())"
    surroundings = os.environ | {"PATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert re.search(
        r"apt install python\S+ python\S+-venv libpython\S+|Everything up to export runs here", said.stderr
    )


def test_setting_up_again_does_nothing():
    shell = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    said = subprocess.run(["make", "setup"], cwd=ROOT, env=shell, capture_output=True, text=True, check=True)
    assert said.stdout == ""


def test_the_locks_pin_everything_the_project_names():
    locked = pins(ROOT / "requirements.lock")
    text = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'^    "([A-Za-z0-9_.-]+)(?:\[[^"]*\])?[<>=]', text, re.MULTILINE)
    assert len(named) > 20
    assert [
        name
        for name in named
        if name.lower().replace("_", "-").replace(".", "-") not in {key.replace(".", "-") for key in locked}
    ] == []


def test_both_environments_decode_pictures_alike():
    server = pins(ROOT / "serving" / "runtime" / "requirements.lock")
    assert server["pillow"] == pins(ROOT / "requirements.lock")["pillow"]
    assert server["numpy"].startswith("1.")
    assert f"pillow=={server['pillow']}" in (ROOT / "serving" / "runtime" / "Containerfile").read_text()


def test_every_dependency_has_its_reason():
    dependencies = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
    lines = [line for line in dependencies.splitlines() if line.strip()]
    assert all("# " in line for line in lines), [line for line in lines if "# " not in line]
