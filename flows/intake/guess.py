"""Guesses the kinds of a table's columns from its first rows, for a person to correct."""

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

ROWS = 5000  # that are read
TARGETS = ("target", "label", "class", "outcome", "y", "price", "value", "intent")  # frequent names of a target
MOST_REFUSED = 0.05  # share of a feature's cells that its kind rejects; with more the column is left out
SURE = 0.5  # with a smaller likelihood of the target's kind there is a warning
NUMBER_FORMATS = (  # in this order of preference
    *(delimited.PLAIN, delimited.Marks(".", ","), delimited.Marks(","), delimited.Marks(",", ".")),
    *(delimited.Marks(decimal, thousands) for thousands in " '\u2019\u00a0\u202f" for decimal in ".,"),
)
_ID = re.compile(r"(.*[ _-])?(id|uuid|guid)", re.IGNORECASE)
_DATA = re.compile(r"[+-]?\d+([.,]\d+)*|\d{4}-\d\d-\d\d.*")  # more likely a cell than a column's name


@dataclass(frozen=True)
class Guess:
    """A column. `kind` is "" if the column is left out, for the reason in `note`."""

    name: str
    kind: str
    missing: float  # share of rows
    distinct: int
    example: str
    note: str = ""


class Guessed(NamedTuple):
    """The columns of a table, and warnings about it."""

    features: list[Guess]
    target: Guess
    doubts: list[str]
    marks: delimited.Marks  # decimal and thousands marks of its numbers

    def options(self) -> dict[str, str]:
        """The marks as `data.options`, without the default ones."""
        return {mark: value for mark, value in self.marks._asdict().items() if value != getattr(delimited.PLAIN, mark)}


def table(path: Path, format_name: str, options: Any = None, target: str = "") -> Guessed | None:
    """Guess the features and the target of the table at `path`; None if the format is not a table.

    Args:
        target: the target's column; by default the first with a frequent name, else the last column.

    Raises:
        UserError: the table cannot be read, or has no usable feature or target.
    """
    if format_name not in sources.TABLES:
        return None
    source = sources.source(format_name)
    options = options or source.Options()
    present = source.columns(path, options)
    held = source.held(path, options) if isinstance(source, sources.Holding) else {}
    nested = source.nested(path, options) if isinstance(source, sources.Nesting) else {}
    nested = {name: why for name, why in nested.items() if name not in held}
    names = [name for name in present if name not in nested and name not in held]
    if not names or len(names) + len(held) < 2:
        raise UserError(
            "data-one-column", f"{path} has only one column, {', '.join(names)}: a table needs a feature and a target"
        )
    if target and target not in names:
        raise UserError("data-no-target", f"{path} has no column {target!r} of single values{nearest(target, names)}")
    cells, rejects = first_rows(path, source, options, names)
    rows, first_reject = len(cells[names[0]]), f"the first: {' '.join(rejects[0])}" if rejects else ""
    if not rows:
        raise UserError(
            "data-no-rows", f"no row of {path} can be read: {first_reject}" if rejects else f"{path} has no rows"
        )
    fitting = [delimited.PLAIN]
    if isinstance(options, delimited.Options):
        fitting = number_formats(cells.values()) if options.marks == delimited.PLAIN else [options.marks]
    target_name = target or next((name for name in names if name.lower() in TARGETS), names[-1])
    if len({str(value) for value in cells[target_name] if value is not None}) < 2:
        raise UserError(
            "data-constant-target",
            f"{path}: the target {target_name!r} is the same in all rows: name another with --target",
        )
    features = [guess_feature(name, values, fitting[0]) for name, values in cells.items() if name != target_name]
    features += [guess_file_column(name, cells) for name, cells in held.items()]
    features += [Guess(name, "", 0.0, 0, "", f"left out: {why}") for name, why in nested.items()]
    if not any(column.kind for column in features):
        raise UserError(
            "data-no-feature",
            f"{path} has no feature: " + "; ".join(f"{column.name!r} is {column.note}" for column in features),
        )
    doubts = [f"{len(rejects):,} of {rows + len(rejects):,} rows cannot be read: {first_reject}"] if rejects else []
    if fitting[0] == delimited.Marks(".", ",") and delimited.Marks(",") in fitting:
        doubts.append("the commas in numbers may be decimal marks: if so, add --options '{decimal: \",\"}'")
    if (
        isinstance(options, delimited.Options)
        and not options.columns
        and (data := list(filter(_DATA.fullmatch, present)))
    ):
        doubts.append(
            f"the first row looks like data ({', '.join(data[:3])}): if it is, add --options '{{columns: [...]}}'"
        )
    return Guessed(features, guess_target(target_name, cells[target_name], fitting[0]), doubts, fitting[0])


def number_formats(columns: Iterable[Sequence[str | None]]) -> list[delimited.Marks]:
    """The formats with which most cells are numbers, over the columns that mostly contain numbers."""
    texts = [[cell for cell in cells if cell is not None] for cells in columns]
    unusual = [cells for cells in texts if not count_numbers(cells, delimited.PLAIN)]
    candidates = [marks for marks in NUMBER_FORMATS if any(count_numbers(cells, marks) for cells in unusual)]
    counts = {
        marks: sum(count_numbers(cells, marks) for cells in texts) if candidates else 0
        for marks in (delimited.PLAIN, *candidates)
    }
    return [marks for marks in counts if counts[marks] == max(counts.values())]


def count_numbers(texts: Sequence[str], marks: delimited.Marks) -> int:
    """Count the numbers in this format; 0 unless they are more than half of the cells."""
    count = sum(bool(delimited.numeral(marks).fullmatch(text)) for text in texts)
    return count if 2 * count > len(texts) else 0


def first_rows(
    path: Path, source: Any, options: Any, names: Sequence[str]
) -> tuple[dict[str, list[Any]], list[Reject]]:
    """Read the first rows: their cells by column, None if missing, and the rows that cannot be read."""
    anything = Schema(tuple(Column(name, "category") for name in names[:-1]), Column(names[-1], "target_class"))
    items = list(
        islice((item for chunk in source.chunks(path, anything, options) for item in source.read(chunk)), ROWS)
    )
    rows = [item.values for item in items if isinstance(item, Sample)]
    return {name: [row[name] for row in rows] for name in names}, [item for item in items if isinstance(item, Reject)]


def guess_feature(name: str, values: list[Any], marks: delimited.Marks = delimited.PLAIN) -> Guess:
    """Guess a column's kind, or why to leave it out."""
    present = [value for value in values if value is not None]
    if len(set(map(str, present))) < 2:
        return summarize(name, values, "", "left out: the same in all rows" if present else "left out: all missing")
    plain = [as_python(value, marks) for value in present]
    if is_row_id(name, plain):
        return summarize(name, values, "", "left out: it only identifies rows")
    chosen, _ = likeliest_kind(sections.feature_kinds(), plain)
    if not chosen:
        return summarize(name, values, "", "left out: a different word in nearly each row")
    fault, share = faulty_cells(kind(chosen), present, marks)
    if share > MOST_REFUSED:
        return summarize(name, values, "", f"left out: {fault}")
    return summarize(name, values, chosen, join_notes(number_note(kind(chosen), present, marks), fault))


def guess_file_column(name: str, cells: list[Any]) -> Guess:
    """Guess the kind of a column of files from the first few."""
    chosen, _ = likeliest_kind([other for other in sections.feature_kinds() if kind(other).RAW == "bytes"], cells)
    return Guess(name, chosen, 0.0, len(set(cells)), "", "" if chosen else "left out: files of no kind known here")


def guess_target(name: str, values: list[Any], marks: delimited.Marks = delimited.PLAIN) -> Guess:
    """Guess the target's kind."""
    present = [value for value in values if value is not None]
    chosen, claim = likeliest_kind(sections.target_kinds(), [as_python(value, marks) for value in present], "target_")
    module = target_kind(f"target_{chosen}")
    doubt = f"{len(set(map(str, present))):,} different values in {len(values):,} rows: is it another column?"
    fault, _ = faulty_cells(module, present, marks)
    notes = "the target", number_note(module, present, marks), fault, doubt if claim < SURE else ""
    return summarize(name, values, chosen, join_notes(*notes))


def likeliest_kind(kinds: Sequence[str], values: Sequence[Any], prefix: str = "") -> tuple[str, float]:
    """The likeliest kind of the values and its likelihood, 0 to 1; "" if none fits."""
    claims = {name: views.of(prefix + name).likely(values) for name in kinds}
    most = max(claims, key=lambda name: claims[name])
    return (most, claims[most]) if claims[most] > 0 else ("", 0.0)


def faulty_cells(module: Kind | Target, values: Sequence[Any], marks: delimited.Marks) -> tuple[str, float]:
    """Describe the cells that a kind rejects, and their share. Files are not checked."""
    faults = []
    for value in values if module.RAW != "bytes" else ():
        try:
            module.raw(delimited.plain(value, marks) if has_number_format(module, marks) else value)
        except ValueError as error:
            faults.append(str(error))
    return f"{len(faults):,} cells cannot be read: {faults[0]}" if faults else "", len(faults) / max(1, len(values))


def number_note(module: Kind | Target, values: Sequence[Any], marks: delimited.Marks) -> str:
    """Show how the first number that is not in Python's format is read."""
    rewritten_values = (
        (value for value in values if as_python(value, marks) != value)
        if has_number_format(module, marks)
        else iter(list[Any]())
    )
    return next((f"{value} is read as {as_python(value, marks)}" for value in rewritten_values), "")


def has_number_format(module: Kind | Target, marks: delimited.Marks) -> bool:
    """Whether the kind's cells are numbers in another format than Python's."""
    return marks != delimited.PLAIN and module.RAW == "float64"


def as_python(value: Any, marks: delimited.Marks) -> Any:
    """Convert a number in this format to Python's; return anything else unchanged."""
    return (
        delimited.plain(value, marks)
        if marks != delimited.PLAIN and delimited.numeral(marks).fullmatch(value)
        else value
    )


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty."""
    return ", ".join(filter(None, notes))


def is_row_id(name: str, values: Sequence[Any]) -> bool:
    """Whether all values differ, and the column is named like an id or contains consecutive whole numbers."""
    if len(set(values)) < len(values):
        return False
    try:
        running = all(abs(int(after) - int(before)) == 1 for before, after in pairwise(values))
    except (TypeError, ValueError):
        running = False
    return running or bool(_ID.fullmatch(name))


def summarize(name: str, values: Sequence[Any], chosen: str, note: str = "") -> Guess:
    """Add the statistics that a person looks at."""
    present = [str(value) for value in values if value is not None]
    missing = 1 - len(present) / max(1, len(values))
    return Guess(name, chosen, missing, len(set(present)), present[0] if present else "", note)
