"""Rows that are one sample but for trivial differences: case, blanks, punctuation, or the last digits of numbers.

And labels that are one but for their form.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BITS = 10  # of a number that count: some three digits
_BETWEEN = re.compile(r"""[\s.,;:!?…"'\u2018-\u201f«»¿¡()\[\]]+""")  # no signs that tell words apart, as in C++ and C#


def groups(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """For each row a number [N], by first appearance; rows have the same one if those columns agree in normal form."""
    import numpy as np
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    mixed = np.zeros(len(rows), np.uint64)
    for name in columns:  # one after another, as all normal forms at once would be the table once more
        plain = _rounded(rows[name]) if is_numeric_dtype(rows[name]) else _normal(rows[name])
        mixed = mixed * np.uint64(31) + pd.util.hash_array(plain)
    return pd.factorize(mixed)[0]


def spellings(labels: pd.Series) -> list[dict[str, int]]:
    """Words that differ in case, blanks or Unicode form alone: {word: its rows} for each such group, largest first."""
    alike: dict[str, dict[str, int]] = {}
    for word, rows in labels.value_counts().sort_index().items():
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", str(word)).casefold())
        alike.setdefault("".join(plain.split()), {})[str(word)] = int(rows)
    found = [group for group in alike.values() if len(group) > 1]
    return sorted(found, key=lambda group: -sum(group.values()))


def _rounded(values: pd.Series) -> np.ndarray:
    """Numbers to the nearest of so few bits, as those bits, uint64 [N]: far faster than decimal digits."""
    import numpy as np

    rest = np.uint64(52 + 1 - BITS)  # of the 52 bits after the first one
    bits = (values.to_numpy(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return (bits + (np.uint64(1) << (rest - np.uint64(1)))) >> rest


def _normal(values: pd.Series) -> np.ndarray:
    """The number of each word's normal form; -1 where it is missing."""
    import numpy as np
    import pandas as pd

    codes, words = pd.factorize(values)
    forms = pd.factorize(np.array([_form(word) for word in words], object))[0]
    return np.where(codes < 0, -1, forms[codes] if len(forms) else -1)


def _form(word: str) -> str:
    lower = unicodedata.normalize("NFKC", word).casefold()
    return _BETWEEN.sub(" ", lower).strip() or lower
