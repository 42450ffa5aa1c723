"""Writes results between two marks of a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(page: Path, lines: Sequence[str], mark: str = "figures") -> None:
    """Replace the lines between the marks."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    page.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")
