"""What a person should know of a table before anything is trained: leaks, small classes, labels in two spellings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from flows.intake.guess import Guessed, as_python, is_of_words
from flows.intake.survey import Counts, Survey
from stages.schema import kind, target_kind
from stages.tables.number_format import Marks
from stages.validation import afterwards, leaks, near_duplicates

FEW = 5  # classes that a notice names
FEWEST_ROWS = 10  # of a class: with fewer, a split hardly has any
UNEVEN = 0.9  # share of the largest class
MOST_WORDS = 10_000  # of a column whose spellings are compared
SURE = 0.95  # share of the target that a column may tell without a notice


def notices(guessed: Guessed, survey: Survey) -> list[str]:
    """A sentence for each, with what to do. Leaks are looked for in the sample, the others in all rows."""
    target = guessed.target
    found = []
    words = survey.counts[target.name]
    if target_kind(f"target_{target.kind}").RAW == "str":
        found += small_classes(target.name, words.words(), words.present) if words.distinct <= MOST_WORDS else []
    for column in guessed.features:
        if column.kind and column.name in survey.counts and is_of_words(kind(column.kind)):
            found += spellings(column.name, survey.counts[column.name])
    if target_kind(f"target_{target.kind}").RAW == "str":
        found += spellings(target.name, words)
    return found + leaking(guessed, survey)


def small_classes(name: str, rows: Mapping[str, int], all_rows: int) -> list[str]:
    """Notices of classes with few rows, and of one that has nearly all."""
    small = sorted((count, word) for word, count in rows.items() if count < FEWEST_ROWS)
    most, word = max((count, word) for word, count in rows.items())
    found = []
    if small and len(small) < len(rows):
        shown = ", ".join(f"{word!r} ({count:,})" for count, word in small[:FEW])
        more = f" and {len(small) - FEW:,} more" if len(small) > FEW else ""
        found.append(
            f"{name}: {shown}{more} of {all_rows:,} rows: too few to learn from or to test: bring more such rows, or"
            " set split.by: strata, so that train has some, and model.head.class_weights: balanced"
        )
    if most > UNEVEN * all_rows:
        found.append(
            f"{name}: {word!r} is {most / all_rows:.1%} of all rows: always answering it has that accuracy: judge by"
            " f1_macro, and set split.by: strata and model.head.class_weights: balanced"
        )
    return found


def spellings(name: str, counts: Counts) -> list[str]:
    """A notice of words that differ only in form."""
    groups = near_duplicates.spellings(counts.words()) if counts.distinct <= MOST_WORDS else []
    if not groups:
        return []
    what = "differ only in case, blanks, Unicode form or number spelling"
    return [f"{name}: {near_duplicates.named(groups)} {what}: if they mean the same, make them one in the data"]


def leaking(guessed: Guessed, survey: Survey) -> list[str]:
    """Notices of what tells the target before it is known, and of rows that are sorted by it."""
    import numpy as np
    import pandas as pd

    target = guessed.target
    columns = {
        column.name: typed(survey.cells[column.name], kind(column.kind).RAW, guessed.marks)
        for column in guessed.features
        if column.kind and column.name in survey.cells
    }
    if not columns:
        return []
    raw = target_kind(f"target_{target.kind}").RAW
    columns[target.name] = typed(survey.cells[target.name], raw, guessed.marks)
    rows = pd.DataFrame(columns)
    rows["_id"] = pd.util.hash_pandas_object(rows.drop(columns=target.name), index=False).astype(np.uint64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many classes, which guess has noted
        found = leaks.sentences(*leaks.expected(rows, target.name, SURE, 2.0))
        share = afterwards.order(rows, target.name)
    if share > SURE:
        found.append(
            f"the rows are sorted by {target.name}: their order tells {share:.0%} of it, and so does any column that"
            " counts them, such as an id: leave such columns out"
        )
    return found


def typed(values: Sequence[Any], raw: str, marks: Marks) -> Any:
    """Cells as a pandas column: numbers, NaN where one cannot be read, or texts."""
    import pandas as pd

    if raw == "float64":
        plain = [as_python(value, marks) if isinstance(value, str) else value for value in values]
        return pd.to_numeric(pd.Series(plain, dtype=object), errors="coerce").astype("float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype=object)
