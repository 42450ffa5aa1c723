"""Fills templates: what all HTML pages share lies in this folder, and every page contains all that it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

COPIES = ("stages/core/page/base.html", "stages/core/page/drawings.html", "stages/core/page/style.css")
_ROOT = Path(__file__).parents[3]


def render(files: Sequence[str], values: Mapping[str, Any], escape: Callable[[Any], str] | None = None) -> str:
    """Fill a template.

    Args:
        files: the template, and those that it loads besides COPIES, relative to the project's folder. Others cannot be
            loaded: a stage lists its files in COPIES, so that its record of code holds them all.
        values: name -> value.
        escape: escapes a value for a format other than HTML.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    environment = Environment(
        loader=DictLoader({Path(file).name: (_ROOT / file).read_text(encoding="utf-8") for file in (*files, *COPIES)}),
        autoescape=escape is None,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(Path(files[0]).name).render(values)
