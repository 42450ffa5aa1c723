"""The project in another folder, as `git clone` leaves it, and its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[2]


BIN = Path(sys.executable).parent


def environment(folder: Path) -> dict[str, str]:
    """Return a shell's variables in a clone: this environment's commands, the clone's code, the project's server."""
    dropped = ("PYTHONPATH", "PREFECT_API_URL", "PYTHONDONTWRITEBYTECODE")  # compiling everything each time takes long
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "PYTHONPATH": str(folder),
        "MILLRACE_TRITON": os.environ.get("MILLRACE_TRITON", str(ROOT / ".venv-triton")),
        "DVC_NO_ANALYTICS": "1",
        "COLUMNS": "160",
    }


class Clone:
    """The project's own files in another folder, as `git clone` leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self, *command: str, env: Mapping[str, str] = MappingProxyType({}), **options: object
    ) -> subprocess.Popen[str]:
        """Start a command there in a new session."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment(self.folder), **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )

    def run(self, *command: str, code: int = 0, env: Mapping[str, str] = MappingProxyType({})) -> str:
        """Run a command there and return its output. Fails unless it exits with `code`."""
        process = self.start(*command, env=env)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == code, f"{' '.join(command)} exited with {process.returncode}:\n{output}"
        assert "Traceback" not in output, output
        return output

    def millrace(self, *arguments: str, code: int = 0) -> str:
        """Run the `millrace` command there."""
        return self.run(sys.executable, "-m", "flows.cli", *arguments, code=code)

    def params(self, **sections: dict[str, object]) -> None:
        """Change values in its params.yaml."""
        from stages.settings import params

        params.edit(sections, self.folder / "params.yaml")

    def init(self) -> None:
        """Put it under git and DVC, run its graph, and commit what that leaves."""
        for command in (
            ("git", "init", "-q"),
            ("git", "config", "user.name", "somebody"),
            ("git", "config", "user.email", "somebody@example.org"),
            ("dvc", "init", "-q"),
            ("dvc", "repro", "-q"),
            ("git", "add", "-A"),
            ("git", "commit", "-qm", "done"),
        ):
            self.run(*command)

    def copy(self, folder: Path) -> Clone:
        """Copy everything, with DVC's cache and the outputs, to another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder)


def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    """Wait until `condition` holds, and fail where it does not in time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {deadline_s:g} s"
        time.sleep(0.02)


def clone(folder: Path) -> Clone:
    """Copy the project's files as they are now, without outputs and cache, and commit them to a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in ("manifest.json", "statistics.json", "verdict.json"):
        (folder / "champion" / name).write_text("{}\n")  # whatever this project has released
    made = Clone(folder)
    made.run("git", "init", "-q")
    made.run("git", "config", "user.name", "somebody")
    made.run("git", "config", "user.email", "somebody@example.org")
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "clone")
    return made
