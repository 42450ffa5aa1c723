"""Hints for misspelled names, and the names of a package's modules."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for an error message: the known word nearest to `word`, or all known words if none is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": there is {', '.join(known)}" if known else ""


def modules(package: ModuleType) -> list[str]:
    """The sorted names of a package's modules."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
