"""Writes the report of a run as an HTML page, and the same content as a model card in Markdown.

This is not a stage: `millrace run` and the Prefect flow do it at the end. The report has latencies, the commit and the
date, which no stage's output may contain.
"""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.report.summary import gather
from stages.core import interrupts
from stages.core.errors import UserError
from stages.core.files import replacing
from stages.core.page import render
from stages.core.printing import protect_printing
from stages.settings import params

PAGE, CARD = "index.html", "card.md"  # in the folder of the verdict
PAGE_FILES = ("flows/report/templates/index.html", "flows/report/templates/macros.html")
CARD_FILES = ("flows/report/templates/card.md",)
_MARKUP = {"\\": "\\\\", "&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "](": "]\\(", "\r": " ", "\n": " "}


def write(paths: Mapping[str, str]) -> Path:
    """Write page and card, and return the path of the page.

    Args:
        paths: the outputs of the stages by their names in dvc.yaml.

    Raises:
        UserError: nothing has been judged yet.
    """
    run = gather({name: Path(path) for name, path in paths.items()})
    folder = Path(paths["verdict"]).parent
    for name, text in (
        (PAGE, render(PAGE_FILES, {"run": run})),
        (CARD, render(CARD_FILES, {"run": run}, escape)),
    ):
        with replacing(folder / name) as scratch:
            scratch.write_text(text, encoding="utf-8")
    return folder / PAGE


def escape(value: Any) -> str:
    """Escape text for Markdown, also in a table's cell: names come from users' data."""
    text = str(value)
    for character, replacement in _MARKUP.items():
        text = text.replace(character, replacement)
    return text


def main() -> int:
    """Write the report and print its path; return 1 with an error if that is impossible."""
    interrupts.raised()
    protect_printing()
    try:
        print(f"the report of this run: {write(params.paths())}")
    except UserError as error:
        print(error.line, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
