"""What tells the target before it is known: a column, a sum of columns, blanks, or the order of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.validation import afterwards, leakage, sums
from stages.validation.expectations import Suite

if TYPE_CHECKING:
    import pandas as pd

EXPECTED = "expect_column_max_to_be_between"
EVERYTHING = 1.0
_BEFORE = "unless it is known before the target is, take its column out of schema.features"
_ANY = "unless all are known before the target is, take one of the columns out of schema.features"
_BLANK = "if it is filled in after the target is known, take its column out of schema.features"
_COUNTS = "if new rows have no such place, take the column out of schema.features, or set split: {by: time}"


def expected(rows: pd.DataFrame, target: str, warned: float, most: float) -> tuple[Suite, dict[str, float]]:
    """What is expected of each sign of a leak, and the value of each.

    Args:
        rows: values and facts, in the table's order, with `_id`.
        target: the target's column.
        warned: the share of the target that a column may tell without a warning.
        most: the share above which the table is refused; at 1.0 one that tells everything is refused, too.
    """
    scores = leakage.scores(rows, target)
    suite = [
        _limit(name, f"share of {target} that {name} tells by itself", _BEFORE, score, warned, most)
        for name, score in scores.items()
    ]
    values = dict(scores)
    if not scores:
        return suite, values
    for text, score in sums.find(_without(rows, [name for name in scores if scores[name] > warned]), target):
        suite.append(_limit(text, f"share of {target} that the sum {text} tells", _ANY, score, warned, most))
        values[text] = score
    for name, value, share in afterwards.blanks(rows, target):
        blank, about = f"{name} missing", f"agreement of the rows without {name} with those whose {target} is {value}"
        suite.append(_limit(blank, about, _BLANK, share, warned, 2.0))
        values[blank] = share
    counters = [name for name in afterwards.counters(rows) if name != target and scores.get(name, 0.0) <= warned]
    if counters and (share := afterwards.order(rows, target)) > 0:
        for name in counters:
            place, about = (
                f"{name} in order",
                f"share of {target} that the order of the rows tells, which {name} counts,",
            )
            suite.append(_limit(place, about, _COUNTS, share, afterwards.SORTED, 2.0))
            values[place] = share
    return suite, values


def sentences(suite: Suite, values: dict[str, float]) -> list[str]:
    """A sentence for each limit that is passed."""
    passed = [limit for _, limit in suite if values[limit["column"]] > limit["max_value"] or limit.get("strict_max")]
    return [f"{limit['description']} is {values[limit['column']]:.2%}: {limit['notes']}" for limit in passed]


def _limit(name: str, about: str, advice: str, score: float, warned: float, most: float) -> tuple[str, dict[str, Any]]:
    """The expectation of one value. With `most` at 1.0, a score of 1.0 is over it."""
    refused = score > most or score >= EVERYTHING == most
    bound: dict[str, Any] = {"max_value": most if refused else warned}
    if refused and most == EVERYTHING:
        bound["strict_max"] = True
    severity = "critical" if refused else "warning"
    return EXPECTED, {"column": name, **bound, "severity": severity, "description": about, "notes": advice}


def _without(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return rows.drop(columns=names)
