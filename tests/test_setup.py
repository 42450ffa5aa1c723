"""What the machine must have, and the messages where it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

CHECK = ROOT / "serving/triton/runtime/check.py"


def pins(path: Path) -> dict[str, str]:
    """Return the name and version in each line of a lock file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_a_suitable_interpreter_is_found():
    result = subprocess.run([sys.executable, CHECK], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"this machine has none: {result.stderr.strip()}")
    assert Path(result.stdout.strip()).exists()


def test_without_a_suitable_interpreter_the_remedy_is_printed(tmp_path):
    code = f"import sys; sys.executable = '/nowhere'; sys.path.insert(0, {str(CHECK.parent)!r}); import check"
    code += "; check.VERSIONS = ('3.99',); sys.exit(check.main())"
    surroundings = os.environ | {"PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.search(
        r"apt install python\S+ python\S+-venv libpython\S+|Everything up to export runs here", result.stderr
    )


def test_a_second_setup_does_nothing():
    shell = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    # Another environment must not be made under the tests that run in this one.
    due = subprocess.run(["make", "--question", "environments"], cwd=ROOT, env=shell, check=False)
    assert due.returncode == 0, "an environment is out of date: run `make setup`"
    result = subprocess.run(["make", "setup"], cwd=ROOT, env=shell, capture_output=True, text=True, check=True)
    assert result.stdout == ""


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


def test_both_environments_pin_the_same_pillow():
    server = pins(ROOT / "serving/triton/runtime/requirements.lock")
    assert server["pillow"] == pins(ROOT / "requirements.lock")["pillow"]
    assert server["numpy"].startswith("1.")
    assert f"pillow=={server['pillow']}" in (ROOT / "serving/deploy/Containerfile").read_text()


def test_every_dependency_has_its_reason():
    dependencies = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
    lines = [line for line in dependencies.splitlines() if line.strip()]
    assert all("# " in line for line in lines), [line for line in lines if "# " not in line]
