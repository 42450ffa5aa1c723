"""Where figures are written: between two marks of a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def write(page: Path, lines: Sequence[str]) -> None:
    """Put the lines between the marks, instead of what stands there."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")
