"""The page of a run, for people, and the same facts as a model card in Markdown.

No stage, but what both drivers do at the end: it shows times, the commit and the day, which no stage's output may hold,
and the graph pays nothing for it.
"""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.report.summary import gather
from stages.core import interrupts
from stages.core.command import printing_anything, replacing
from stages.core.errors import UserError
from stages.settings import params

PAGE, CARD = "index.html", "card.md"  # beside the verdict
_TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8")
_MARKUP = {"\\": "\\\\", "&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "](": "]\\(", "\r": " ", "\n": " "}


def write(paths: Mapping[str, str]) -> Path:
    """Write page and card from the outputs of the stages, by their names in dvc.yaml; where the page lies.

    Raises:
        UserError: nothing was judged yet.
    """
    run = gather({name: Path(path) for name, path in paths.items()})
    folder = Path(paths["verdict"]).parent
    for name, environment in ((PAGE, _environment(autoescape=True)), (CARD, _environment(finalize=escaped))):
        with replacing(folder / name) as whole:
            whole.write_text(environment.get_template(name).render(run=run), encoding="utf-8")
    return folder / PAGE


def escaped(value: Any) -> str:
    """Anything as text that Markdown shows as it is, in a cell of a table too: names are other people's."""
    text = str(value)
    for mark, instead in _MARKUP.items():
        text = text.replace(mark, instead)
    return text


def _environment(**how: Any) -> Environment:
    return Environment(
        loader=_TEMPLATES,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **how,
    )


def main() -> int:
    """Say where the page lies; 1: there is none, and why."""
    interrupts.raised()
    printing_anything()
    try:
        print(f"the report of this run: {write(params.paths())}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
