"""Rows and labels with only trivial differences: in case, blanks, punctuation, or the last digits of numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stages.validation.expectations import Suite

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FEW = 5  # groups of words that a warning names
BITS = 10  # of a number that are compared: some three digits
_BETWEEN = re.compile(
    r"""[\s.,;:!?…"'\u2018-\u201f«»¿¡()\[\]]+"""
)  # but no signs that distinguish words, as in C++ and C#
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")


def groups(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """A group number for each row, [N]: rows are in the same group if `columns` have equal normal forms."""
    import numpy as np
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    mixed = np.zeros(len(rows), np.uint64)
    for name in columns:  # one by one, as all normal forms together are as large as the table
        plain = _rounded(rows[name]) if is_numeric_dtype(rows[name]) else _normal(rows[name])
        mixed = mixed * np.uint64(31) + pd.util.hash_array(plain)
    codes: np.ndarray = pd.factorize(mixed)[0]
    return codes


def spellings(counts: Mapping[str, int]) -> list[dict[str, int]]:
    """Groups of words that differ only in case, blanks, Unicode form or the spelling of a number, largest group first.

    Args:
        counts: the rows of each word.

    Returns:
        {word: its rows} of each group.
    """
    spelled: dict[str, dict[str, int]] = {}
    for word, rows in sorted(counts.items()):
        plain = "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold()).split())
        number = _WHOLE.fullmatch(plain)
        spelled.setdefault(number.expand(r"\1\2") if number else plain, {})[word] = rows
    several = [group for group in spelled.values() if len(group) > 1]
    return sorted(several, key=lambda group: -sum(group.values()))


def named(groups: Sequence[Mapping[str, int]]) -> str:
    """The first groups of words with their rows."""
    shown = [" and ".join(f"{word!r} ({rows:,})" for word, rows in group.items()) for group in groups[:FEW]]
    return "; ".join(shown + ([f"{len(groups) - FEW:,} more"] if len(groups) > FEW else []))


def expected(labels: pd.Series, target: str) -> tuple[Suite, dict[str, float]]:
    """That no labels differ from one another only in form, and how many do; empty if none do."""
    from pandas.api.types import is_numeric_dtype

    counts = {} if is_numeric_dtype(labels) else labels.value_counts().to_dict()
    groups = spellings({str(word): int(rows) for word, rows in counts.items()})
    if not groups:
        return [], {}
    what = (
        f"number of labels in {target} that differ from another only in case, blanks, Unicode form or number spelling"
    )
    limit = {"column": "labels", "max_value": 0, "severity": "warning", "description": what}
    limit |= {"notes": f"{named(groups)}: if they mean the same, make them one in the data"}
    return [("expect_column_max_to_be_between", limit)], {"labels": sum(map(len, groups))}


def _rounded(values: pd.Series) -> np.ndarray:
    """The bits of numbers rounded to BITS significant bits, uint64 [N]: far faster than decimal digits."""
    import numpy as np

    rest = np.uint64(52 + 1 - BITS)  # of the 52 bits after the first one
    bits = (values.to_numpy(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    rounded: np.ndarray = (bits + (np.uint64(1) << (rest - np.uint64(1)))) >> rest
    return rounded


def _normal(values: pd.Series) -> np.ndarray:
    """A number for the normal form of each word, [N]; -1 if it is missing."""
    import numpy as np
    import pandas as pd

    codes, words = pd.factorize(values)
    forms = pd.factorize(np.array([_form(word) for word in words], object))[0]
    return np.where(codes < 0, -1, forms[codes] if len(forms) else -1)


def _form(word: str) -> str:
    lower = unicodedata.normalize("NFKC", word).casefold()
    return _BETWEEN.sub(" ", lower).strip() or lower
