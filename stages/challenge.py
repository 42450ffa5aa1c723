"""The champion: the model that is released, if there is one yet."""

from __future__ import annotations

import json
from pathlib import Path

from stages import command, manifest
from stages.errors import UserError


def main(champion: Path, answers: Path) -> None:
    """Say which model is released."""
    try:
        described = json.loads(champion.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{champion} is no JSON: restore it with `git checkout {champion}`") from error
    released = manifest.load(champion).id if described else None
    outcome = f"{released} is released" if released else "no champion yet"
    with command.replacing(answers) as whole:
        whole.write_text(json.dumps({"champion": released, "outcome": outcome}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
