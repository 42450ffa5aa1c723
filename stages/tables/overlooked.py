"""What of a data set is not read, or read without its folder's name, in a few sentences with counts and examples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stages.tables import sources

FEW = 3  # examples


def notes(path: Path, format: str) -> list[str]:
    """The files in a folder that the format does not read, and the levels of folders that it drops."""
    if not path.is_dir():
        return []
    source = sources.source(format)
    if isinstance(source, sources.Leveled):
        return source.levels(path)
    with os.scandir(path) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    files = [name for name, folder in listed if not folder and not source.claims(path / name)]
    tables = [name for name, folder in listed if folder and format in sources.TABLES and source.claims(path / name)]
    found = [f"{counted(files, 'file')} not read, since {format} does not read such files"] if files else []
    return found + ([f"{counted(tables, 'folder')} not read: move its tables beside the others"] if tables else [])


def counted(names: Sequence[str], what: str) -> str:
    """Such as "3 files (a.txt, b.txt, c.txt) are"."""
    shown = ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'} ({shown}) {'is' if len(names) == 1 else 'are'}"
