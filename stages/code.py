"""Record the code and packages that each stage runs, so that an edit or upgrade reruns only the stages that use it."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

from pathlib import Path

from stages.core import closure, command
from stages.core.files import replacing
from stages.settings import choices, params


def main(code: Path) -> None:
    """Write `STAGE.json` for each other stage of dvc.yaml."""
    chosen = choices.modules(params.load("code", choices.Parameters))
    with replacing(code) as whole:
        whole.mkdir()
        for stage in params.stages():
            if stage != Path(__file__).stem:
                closure.closure(f"stages/{stage}.py", chosen).dump(whole / f"{stage}.json")


if __name__ == "__main__":
    command.run(main)
