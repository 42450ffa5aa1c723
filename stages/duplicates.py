"""Rows that are one sample but for trivial differences: case, blanks, punctuation, or the last digits of numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DIGITS = 3  # of a number that count
_BETWEEN = re.compile(r"""[\s.,;:!?…"'\u2018-\u201f«»¿¡()\[\]]+""")  # no signs that tell words apart, as in C++ and C#


def groups(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """For each row a number [N], by first appearance; rows have the same one if those columns agree in normal form."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    plain = {name: _rounded(rows[name]) if is_numeric_dtype(rows[name]) else _normal(rows[name]) for name in columns}
    return pd.factorize(pd.util.hash_pandas_object(pd.DataFrame(plain), index=False))[0]


def _rounded(values: pd.Series) -> np.ndarray:
    import numpy as np

    numbers = values.to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = 10.0 ** (np.floor(np.log10(np.abs(numbers))) - (DIGITS - 1))
        return np.where(numbers == 0, 0.0, np.round(numbers / unit) * unit)


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
