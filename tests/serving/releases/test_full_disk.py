"""On a full disk serving goes on, healing needs no space, and what could not be written is written later."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.support.project import ROOT, environment

pytestmark = pytest.mark.usefixtures("a_server")


def may_mount() -> bool:
    """Whether this user may mount a file system in a new namespace."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(command, capture_output=True).returncode


def test_a_server_on_a_full_disk_runs_on_and_heals(after_two, tmp_path):
    if not may_mount():
        pytest.skip("a disk to fill takes the right to mount one: root, or `unshare --mount`")
    disk = tmp_path / "disk"
    disk.mkdir()
    paths = str(ROOT)
    command = ["unshare", "--mount", sys.executable, str(ROOT / "tests/support/full_disk.py")]
    done = subprocess.run(
        [*command, str(after_two), str(disk)],
        env=environment(ROOT) | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
