"""Run a release or a rollback for each line of standard input, and be killed before effect number STEP of it.

A line is `STEP PATH`: the JSON of a candidate to release, or nothing for a rollback. The answer is `killed` or `ended`.
An effect is whatever another process could see: a rename, a copy, a load, a line of the ledger, DVC, git. Each is
run by a fork, so that what must be imported is imported once.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tritonclient.grpc  # noqa: F401  for all forks

from serving.releases import ledger
from serving.releases.candidate import Candidate
from serving.releases.release import release
from serving.releases.rollback import rollback
from serving.releases.store import Store
from serving.triton import admin
from serving.triton import manifest as manifests

EFFECTS = (
    (os, ("rename", "replace")),
    (shutil, ("copytree",)),
    (subprocess, ("run",)),
    (admin.Admin, ("load", "unload")),
    (ledger, ("append",)),
)


def main(root: Path) -> None:
    """Run each line of standard input in a fork, and print how it ended."""
    for line in sys.stdin:
        step, _, described = line.strip().partition(" ")
        child = os.fork()
        if child == 0:
            killed_before(int(step))
            act(root, described)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print({0: "ended", signal.SIGKILL: "killed"}.get(status, f"failed with {status}"), flush=True)


def killed_before(step: int) -> None:
    """Kill this process right before the effect with that number."""
    count = itertools.count(1)

    def fatal(real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return act

    for owner, names in EFFECTS:
        for name in names:
            setattr(owner, name, fatal(getattr(owner, name)))


def act(root: Path, described: str) -> None:
    """Release the described candidate, or roll back."""
    store = Store(root / "live")
    if described:
        fields = json.loads(Path(described).read_text())
        made = manifests.Manifest(**json.loads(fields["manifest"]))
        candidate = Candidate(Path(fields["repository"]), made, fields["verdict"], fields["golden"])
        release(root, store, candidate, keep=3)
    else:
        rollback(root, store, "digits", None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
