"""Rows and labels with only trivial differences: in case, blanks, punctuation, or the last digits of numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BITS = 10  # of a number that are compared: some three digits
_BETWEEN = re.compile(
    r"""[\s.,;:!?…"'\u2018-\u201f«»¿¡()\[\]]+"""
)  # but no signs that distinguish words, as in C++ and C#


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


def spellings(labels: pd.Series) -> list[dict[str, int]]:
    """Groups of words that differ only in case, blanks or Unicode form: {word: its rows}, largest group first."""
    spelled: dict[str, dict[str, int]] = {}
    for word, rows in labels.value_counts().sort_index().items():
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", str(word)).casefold())
        spelled.setdefault("".join(plain.split()), {})[str(word)] = int(rows)
    several = [group for group in spelled.values() if len(group) > 1]
    return sorted(several, key=lambda group: -sum(group.values()))


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
