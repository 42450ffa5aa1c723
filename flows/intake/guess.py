"""Guesses the kinds of a table's columns from all of its rows, for a person to correct."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flows.intake import identifiers
from flows.intake.survey import Counts, Survey, look
from stages.core.errors import UserError
from stages.core.words import nearest
from stages.schema import Kind, Target, kind, target_kind, views
from stages.settings import sections
from stages.tables import arrow, sources
from stages.tables.number_format import PLAIN, Marks, numeral, plain
from stages.tables.sources import delimited

TARGETS = ("target", "label", "class", "outcome", "y", "price", "value", "intent")  # frequent names of a target
MOST_REFUSED = 0.05  # share of a feature's cells that its kind rejects; with more the column is left out
SURE = 0.5  # with a smaller likelihood of the target's kind there is a warning
NUMBER_FORMATS = (  # in this order of preference
    *(PLAIN, Marks(".", ","), Marks(","), Marks(",", ".")),
    *(Marks(decimal, thousands) for thousands in " '\u2019\u00a0\u202f" for decimal in ".,"),
)
SAME = "the same in all rows"
UNNAMED = "left out: it has no name"
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
    marks: Marks  # decimal and thousands marks of its numbers

    def options(self) -> dict[str, str]:
        """The marks as `data.options`, without the default ones."""
        return {mark: value for mark, value in self.marks._asdict().items() if value != getattr(PLAIN, mark)}


def table(path: Path, format_name: str, options: Any = None, target: str = "") -> Guessed | None:
    """The guesses of `survey`."""
    examined = survey(path, format_name, options, target)
    return examined[0] if examined else None


def survey(path: Path, format_name: str, options: Any = None, target: str = "") -> tuple[Guessed, Survey] | None:
    """Guess the features and the target of the table at `path` from all rows; None if the format is not a table.

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
    seen = look(path, source, options, names)
    cells, rows, rejects = seen.cells, seen.rows, seen.rejected
    first_reject = f"the first: {' '.join(seen.first_reject)}" if seen.first_reject else ""
    if not rows:
        raise UserError(
            "data-no-rows", f"no row of {path} can be read: {first_reject}" if rejects else f"{path} has no rows"
        )
    fitting = [PLAIN]
    if isinstance(options, delimited.Options):
        fitting = number_formats(cells.values()) if options.marks == PLAIN else [options.marks]
    own = [name for name in names if not identifiers.is_index(name)] or names
    target_name = target or next((name for name in own if name.lower() in TARGETS), own[-1])
    if seen.counts[target_name].distinct < 2:
        raise UserError(
            "data-constant-target",
            f"{path}: the target {target_name!r} is the same in all rows: name another with --target",
        )
    features = [
        guess_feature(name, values, fitting[0], seen.counts[name])
        for name, values in cells.items()
        if name != target_name
    ]
    if isinstance(options, delimited.Options):
        leading, trailing = delimited.unnamed(path, options)
        notes = [identifiers.INDEX] * leading + [UNNAMED] * trailing
        features += [Guess("(no name)", "", 0.0, 0, "", note) for note in notes]
    features += [guess_file_column(name, cells) for name, cells in held.items()]
    features += [Guess(name, "", 0.0, 0, "", f"left out: {why}") for name, why in nested.items()]
    if not any(column.kind for column in features):
        raise UserError(
            "data-no-feature",
            f"{path} has no feature: " + "; ".join(f"{column.name!r} is {column.note}" for column in features),
        )
    doubts = [f"{rejects:,} of {rows + rejects:,} rows cannot be read: {first_reject}"] if rejects else []
    if fitting[0] == Marks(".", ",") and Marks(",") in fitting:
        doubts.append("the commas in numbers may be decimal marks: if so, add --options '{decimal: \",\"}'")
    if (
        isinstance(options, delimited.Options)
        and not options.columns
        and (data := list(filter(_DATA.fullmatch, present)))
    ):
        doubts.append(
            f"the first row looks like data ({', '.join(data[:3])}): if it is, add --options '{{columns: [...]}}'"
        )
    guessed_target = guess_target(target_name, cells[target_name], fitting[0], seen.counts[target_name])
    return Guessed(features, guessed_target, doubts, fitting[0]), seen


def number_formats(columns: Iterable[Sequence[str | None]]) -> list[Marks]:
    """The formats with which most cells are numbers, over the columns that mostly contain numbers."""
    texts = [[cell for cell in cells if cell is not None] for cells in columns]
    unusual = [cells for cells in texts if not count_numbers(cells, PLAIN)]
    candidates = [marks for marks in NUMBER_FORMATS if any(count_numbers(cells, marks) for cells in unusual)]
    counts = {
        marks: sum(count_numbers(cells, marks) for cells in texts) if candidates else 0
        for marks in (PLAIN, *candidates)
    }
    return [marks for marks in counts if counts[marks] == max(counts.values())]


def count_numbers(texts: Sequence[str], marks: Marks) -> int:
    """Count the numbers in this format; 0 unless they are more than half of the cells."""
    count = sum(bool(numeral(marks).fullmatch(text)) for text in texts)
    return count if 2 * count > len(texts) else 0


def guess_feature(name: str, values: list[Any], marks: Marks = PLAIN, counts: Counts | None = None) -> Guess:
    """Guess a column's kind, or why to leave it out, from cells spread over all rows, and the counts of all."""
    present = [value for value in values if value is not None]
    counts = counts or Counts.of(values)
    if counts.distinct < 2:
        return summarize(name, values, counts, "", f"left out: {SAME if present else 'all missing'}")
    if identifiers.is_index(name):
        return summarize(name, values, counts, "", identifiers.INDEX)
    if counts.distinct == counts.present and (counts.running or identifiers.is_id(name)):
        return summarize(name, values, counts, "", identifiers.ROW_ID)
    converted = [as_python(value, marks) for value in present]
    codes = identifiers.codes(name, present)
    kinds = [other for other in sections.feature_kinds() if not codes or is_of_words(kind(other))]
    chosen, _ = likeliest_kind(kinds, converted)
    if not chosen:
        return summarize(name, values, counts, "", f"left out: {codes or 'a different word'} in nearly each row")
    fault, share = faulty_cells(kind(chosen), counts, marks)
    if share > MOST_REFUSED:
        return summarize(name, values, counts, "", f"left out: {fault}")
    note = join_notes(codes, number_note(kind(chosen), present, marks), fault)
    return summarize(name, values, counts, chosen, note)


def is_of_words(module: Kind) -> bool:
    """Whether a kind's cells are single words."""
    return module.RAW == "str" and module.PACKED


def guess_file_column(name: str, cells: list[Any]) -> Guess:
    """Guess the kind of a column of files from the first few."""
    chosen, _ = likeliest_kind([other for other in sections.feature_kinds() if kind(other).RAW == "bytes"], cells)
    return Guess(name, chosen, 0.0, len(set(cells)), "", "" if chosen else "left out: files of no kind known here")


def guess_target(name: str, values: list[Any], marks: Marks = PLAIN, counts: Counts | None = None) -> Guess:
    """Guess the target's kind."""
    present = [value for value in values if value is not None]
    counts = counts or Counts.of(values)
    chosen, claim = likeliest_kind(sections.target_kinds(), [as_python(value, marks) for value in present], "target_")
    module = target_kind(f"target_{chosen}")
    doubt = f"{counts.distinct:,} different values in {counts.rows:,} rows: is it another column?"
    fault, _ = faulty_cells(module, counts, marks)
    notes = "the target", number_note(module, present, marks), fault, doubt if claim < SURE else ""
    return summarize(name, values, counts, chosen, join_notes(*notes))


def likeliest_kind(kinds: Sequence[str], values: Sequence[Any], prefix: str = "") -> tuple[str, float]:
    """The likeliest kind of the values and its likelihood, 0 to 1; "" if none fits."""
    claims = {name: views.of(prefix + name).likely(values) for name in kinds}
    most = max(claims, key=lambda name: claims[name])
    return (most, claims[most]) if claims[most] > 0 else ("", 0.0)


def faulty_cells(module: Kind | Target, counts: Counts, marks: Marks) -> tuple[str, float]:
    """Describe the cells that a kind rejects, of all rows, and their share. Files are not checked."""
    if module.RAW == "bytes":
        return "", 0.0
    if has_number_format(module, marks):
        faults: dict[int, str] = {}
        for place, value in enumerate(counts.values.to_pylist()):
            try:
                module.raw(plain(value, marks))
            except ValueError as error:
                faults[place] = str(error)
    else:
        _, faults = arrow.raw(counts.values, module)
    rows = int(counts.numbers[list(faults)].sum()) if faults else 0
    return f"{rows:,} cells cannot be read: {faults[min(faults)]}" if faults else "", rows / max(1, counts.present)


def number_note(module: Kind | Target, values: Sequence[Any], marks: Marks) -> str:
    """Show how the first number that is not in Python's format is read."""
    rewritten_values = (
        (value for value in values if as_python(value, marks) != value)
        if has_number_format(module, marks)
        else iter(list[Any]())
    )
    return next((f"{value} is read as {as_python(value, marks)}" for value in rewritten_values), "")


def has_number_format(module: Kind | Target, marks: Marks) -> bool:
    """Whether the kind's cells are numbers in another format than Python's."""
    return marks != PLAIN and module.RAW == "float64"


def as_python(value: Any, marks: Marks) -> Any:
    """Convert a number in this format to Python's; return anything else unchanged."""
    return plain(value, marks) if marks != PLAIN and numeral(marks).fullmatch(value) else value


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty."""
    return ", ".join(filter(None, notes))


def summarize(name: str, values: Sequence[Any], counts: Counts, chosen: str, note: str = "") -> Guess:
    """Add the statistics that a person looks at."""
    example = next((str(value) for value in values if value is not None), "")
    return Guess(name, chosen, counts.missing / max(1, counts.rows), counts.distinct, example, note)
