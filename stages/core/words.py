"""Names that a person may write: those that there are, and the nearest to one that is not among them."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a message: the nearest known word, else all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": there is {', '.join(known)}" if known else ""


def modules(package: ModuleType) -> list[str]:
    """The names of a package's modules, sorted: what may be found in it by its name."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
