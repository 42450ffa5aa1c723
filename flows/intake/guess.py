"""What the columns of a table hold, guessed from its first rows; a person reads and mends what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from stages.core.errors import UserError
from stages.core.words import nearest
from stages.schema import Column, Kind, Schema, Target, kind, target_kind, views
from stages.settings import sections
from stages.tables import sources
from stages.tables.sources import Reject, Sample, delimited

ROWS = 5000  # that are looked at
TARGETS = ("target", "label", "class", "outcome", "y", "price", "value", "intent")  # what it is often called
MOST_REFUSED = 0.05  # share of a feature's cells that its kind does not take; with more it is left out
SURE = 0.5  # a smaller claim of a target's kind is told
WRITINGS = (  # of numbers; the first one where several fit
    *(delimited.PLAIN, delimited.Marks(".", ","), delimited.Marks(","), delimited.Marks(",", ".")),
    *(delimited.Marks(decimal, thousands) for thousands in " '\u2019\u00a0\u202f" for decimal in ".,"),
)
_ID = re.compile(r"(.*[ _-])?(id|uuid|guid)", re.IGNORECASE)
_DATA = re.compile(r"[+-]?\d+([.,]\d+)*|\d{4}-\d\d-\d\d.*")  # what is rather a cell than a column's name


@dataclass(frozen=True)
class Guess:
    """One column. `kind` is "" where it is of no use, for the reason in `note`."""

    name: str
    kind: str
    missing: float  # share of rows
    distinct: int
    example: str
    note: str = ""


class Guessed(NamedTuple):
    """A table, and what a person should know of it as a whole."""

    features: list[Guess]
    target: Guess
    doubts: list[str]
    marks: delimited.Marks  # of its numbers

    def options(self) -> dict[str, str]:
        """What `data.options` must say of them."""
        return {mark: said for mark, said in self.marks._asdict().items() if said != getattr(delimited.PLAIN, mark)}


def table(path: Path, form: str, options: Any = None, target: str = "") -> Guessed | None:
    """The features and the target, the likeliest or `target`, of the table at `path`; None if the format is no table.

    Raises:
        UserError: it cannot be read, or nothing can be learnt from it.
    """
    if form not in sources.TABLES:
        return None
    source = sources.source(form)
    options = options or source.Options()
    there = source.columns(path, options)
    held = source.held(path, options) if isinstance(source, sources.Holding) else {}
    nested = source.nested(path, options) if isinstance(source, sources.Nesting) else {}
    nested = {name: why for name, why in nested.items() if name not in held}
    names = [name for name in there if name not in nested and name not in held]
    if not names or len(names) + len(held) < 2:
        raise UserError(f"{path} has one column only, {', '.join(names)}: a table needs a feature and a target")
    if target and target not in names:
        raise UserError(f"{path} has no column {target!r} of single values{nearest(target, names)}")
    cells, rejects = first_rows(path, source, options, names)
    rows, unread = len(cells[names[0]]), f"the first: {' '.join(rejects[0])}" if rejects else ""
    if not rows:
        raise UserError(f"no row of {path} can be read: {unread}" if rejects else f"{path} has no rows")
    fits = [delimited.PLAIN]
    if isinstance(options, delimited.Options):
        fits = writings(cells.values()) if options.marks == delimited.PLAIN else [options.marks]
    chosen = target or next((name for name in names if name.lower() in TARGETS), names[-1])
    if len({str(value) for value in cells[chosen] if value is not None}) < 2:
        raise UserError(f"{path}: the target {chosen!r} is the same in all rows: say another with --target")
    features = [feature(name, values, fits[0]) for name, values in cells.items() if name != chosen]
    features += [of_files(name, cells) for name, cells in held.items()]
    features += [Guess(name, "", 0.0, 0, "", f"left out: {why}") for name, why in nested.items()]
    if not any(column.kind for column in features):
        raise UserError(f"{path} has no feature: " + "; ".join(f"{each.name!r} is {each.note}" for each in features))
    doubts = [f"{len(rejects):,} of {rows + len(rejects):,} rows cannot be read: {unread}"] if rejects else []
    if fits[0] == delimited.Marks(".", ",") and delimited.Marks(",") in fits:
        doubts.append("the commas in numbers may stand before fractions: if so, say --options '{decimal: \",\"}'")
    if (
        isinstance(options, delimited.Options)
        and not options.columns
        and (data := list(filter(_DATA.fullmatch, there)))
    ):
        doubts.append(
            f"the first row looks like data ({', '.join(data[:3])}): if it is, say --options '{{columns: [...]}}'"
        )
    return Guessed(features, answer(chosen, cells[chosen], fits[0]), doubts, fits[0])


def writings(columns: Iterable[Sequence[str | None]]) -> list[delimited.Marks]:
    """Those in which most cells are numbers, of columns that mostly are."""
    texts = [[cell for cell in cells if cell is not None] for cells in columns]
    odd = [cells for cells in texts if not numbers(cells, delimited.PLAIN)]
    some = [marks for marks in WRITINGS if any(numbers(cells, marks) for cells in odd)]
    found = {marks: sum(numbers(cells, marks) for cells in texts) if some else 0 for marks in (delimited.PLAIN, *some)}
    return [marks for marks in found if found[marks] == max(found.values())]


def numbers(texts: Sequence[str], marks: delimited.Marks) -> int:
    """How many are numbers so written, if more than half of them are."""
    found = sum(bool(delimited.numeral(marks).fullmatch(text)) for text in texts)
    return found if 2 * found > len(texts) else 0


def first_rows(
    path: Path, source: Any, options: Any, names: Sequence[str]
) -> tuple[dict[str, list[Any]], list[Reject]]:
    """The cells of the first rows as the format has them, by column, and the rows that are none; None is missing."""
    anything = Schema(tuple(Column(name, "category") for name in names[:-1]), Column(names[-1], "target_class"))
    found = list(
        islice((each for chunk in source.chunks(path, anything, options) for each in source.read(chunk)), ROWS)
    )
    rows = [each.values for each in found if isinstance(each, Sample)]
    return {name: [row[name] for row in rows] for name in names}, [each for each in found if isinstance(each, Reject)]


def feature(name: str, values: list[Any], marks: delimited.Marks = delimited.PLAIN) -> Guess:
    """What a column holds, or why it is left out."""
    known = [value for value in values if value is not None]
    if len(set(map(str, known))) < 2:
        return told(name, values, "", "left out: the same in all rows" if known else "left out: all missing")
    plain = [bare(value, marks) for value in known]
    if counts_rows(name, plain):
        return told(name, values, "", "left out: it only tells the rows apart")
    chosen, _ = best(sections.feature_kinds(), plain)
    if not chosen:
        return told(name, values, "", "left out: a different word in nearly each row")
    wrong, share = refused(kind(chosen), known, marks)
    if share > MOST_REFUSED:
        return told(name, values, "", f"left out: {wrong}")
    return told(name, values, chosen, said(rewritten(kind(chosen), known, marks), wrong))


def of_files(name: str, cells: list[Any]) -> Guess:
    """What a column holds whose cells are files, from the first few."""
    chosen, _ = best([each for each in sections.feature_kinds() if kind(each).RAW == "bytes"], cells)
    return Guess(name, chosen, 0.0, len(set(cells)), "", "" if chosen else "left out: files of no kind known here")


def answer(name: str, values: list[Any], marks: delimited.Marks = delimited.PLAIN) -> Guess:
    """What the target holds."""
    known = [value for value in values if value is not None]
    chosen, claim = best(sections.target_kinds(), [bare(value, marks) for value in known], "target_")
    module = target_kind(f"target_{chosen}")
    unsure = f"{len(set(map(str, known))):,} different values in {len(values):,} rows: is it another column?"
    wrong, _ = refused(module, known, marks)
    notes = "the target", rewritten(module, known, marks), wrong, unsure if claim < SURE else ""
    return told(name, values, chosen, said(*notes))


def best(kinds: Sequence[str], values: Sequence[Any], prefix: str = "") -> tuple[str, float]:
    """The kind that claims the values most, and its claim; "" if none does."""
    claims = {name: views.of(prefix + name).likely(values) for name in kinds}
    most = max(claims, key=lambda name: claims[name])
    return (most, claims[most]) if claims[most] > 0 else ("", 0.0)


def refused(module: Kind | Target, values: Sequence[Any], marks: delimited.Marks) -> tuple[str, float]:
    """What is wrong with the cells that a kind does not take, in words, and their share; files are not looked into."""
    faults = []
    for value in values if module.RAW != "bytes" else ():
        try:
            module.raw(delimited.plain(value, marks) if marked(module, marks) else value)
        except ValueError as error:
            faults.append(str(error))
    return f"{len(faults):,} cells cannot be read: {faults[0]}" if faults else "", len(faults) / max(1, len(values))


def rewritten(module: Kind | Target, values: Sequence[Any], marks: delimited.Marks) -> str:
    """The first cell that its kind reads as another number than stands there, in words."""
    other = (value for value in values if bare(value, marks) != value) if marked(module, marks) else iter(())
    return next((f"{value} is read as {bare(value, marks)}" for value in other), "")


def marked(module: Kind | Target, marks: delimited.Marks) -> bool:
    """Whether its cells are numbers that are not written as Python has them."""
    return marks != delimited.PLAIN and module.RAW == "float64"


def bare(value: Any, marks: delimited.Marks) -> Any:
    """A number so written as Python has it, anything else as it is."""
    return (
        delimited.plain(value, marks)
        if marks != delimited.PLAIN and delimited.numeral(marks).fullmatch(value)
        else value
    )


def said(*notes: str) -> str:
    """Those that there are, in a row."""
    return ", ".join(filter(None, notes))


def counts_rows(name: str, values: Sequence[Any]) -> bool:
    """Whether no value is there twice, and they are named an id or are whole numbers one after another."""
    if len(set(values)) < len(values):
        return False
    try:
        running = all(abs(int(after) - int(before)) == 1 for before, after in pairwise(values))
    except (TypeError, ValueError):
        running = False
    return running or bool(_ID.fullmatch(name))


def told(name: str, values: Sequence[Any], chosen: str, note: str = "") -> Guess:
    """With the figures that a person looks at."""
    known = [str(value) for value in values if value is not None]
    missing = 1 - len(known) / max(1, len(values))
    return Guess(name, chosen, missing, len(set(known)), known[0] if known else "", note)
