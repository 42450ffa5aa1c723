"""What the columns of a table hold, guessed from its first rows; a person reads and mends what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stages import settings, sources
from stages.schema import Column, Schema, kind, target_kind
from stages.sources import Sample

ROWS = 5000  # that are looked at
TARGETS = ("target", "label", "class", "outcome", "y", "price", "value", "intent")  # what it is often called


@dataclass(frozen=True)
class Guess:
    """One column. `kind` is "" where it is of no use, for the reason in `note`."""

    name: str
    kind: str
    missing: float  # share of rows
    distinct: int
    example: str
    note: str = ""


def table(path: Path, form: str) -> tuple[list[Guess], Guess] | None:
    """The features and the target of the table at `path`; None where the format is no table.

    Raises:
        UserError: it cannot be read.
    """
    source = sources.source(form)
    options = source.Options()
    names = source.columns(path, options)
    if len(names) < 2:
        return None
    cells = first_rows(path, source, options, names)
    called = [name for name in names if name.lower() in TARGETS]
    target = called[0] if called else names[-1]
    features = [feature(name, values) for name, values in cells.items() if name != target]
    return features, told(target, cells[target], best(settings.target_kinds(), cells[target], "target_"))


def first_rows(path: Path, source: Any, options: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """The cells of the first rows as the format has them, by column; None is missing."""
    anything = Schema(tuple(Column(name, "category") for name in names[:-1]), Column(names[-1], "target_class"))
    found = (each for chunk in source.chunks(path, anything, options) for each in source.read(chunk))
    rows: list[Mapping[str, Any]] = [each.values for each in islice(found, ROWS) if isinstance(each, Sample)]
    return {name: [row[name] for row in rows] for name in names}


def feature(name: str, values: list[Any]) -> Guess:
    """What a column holds, or why it is left out."""
    known = [value for value in values if value is not None]
    if len(set(map(str, known))) < 2:
        return told(name, values, "", "left out: the same in all rows" if known else "left out: all missing")
    chosen = best(settings.feature_kinds(), known)
    return told(name, values, chosen, "" if chosen else "left out: a different word in nearly each row")


def best(kinds: Sequence[str], values: Sequence[Any], prefix: str = "") -> str:
    """The kind that claims the values most; "" if none does."""
    known = [value for value in values if value is not None]
    claims = {name: (target_kind if prefix else kind)(prefix + name).likely(known) for name in kinds}
    most = max(claims, key=lambda name: claims[name])
    return most if claims[most] > 0 else ""


def told(name: str, values: Sequence[Any], chosen: str, note: str = "") -> Guess:
    """With the figures that a person looks at."""
    known = [str(value) for value in values if value is not None]
    missing = 1 - len(known) / max(1, len(values))
    return Guess(name, chosen, missing, len(set(known)), known[0] if known else "", note)
