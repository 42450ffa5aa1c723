"""Columns of digits that are no numbers: ids, indexes, zip codes and phone numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+(_level_\d+|\.\d+)*")
_ID = re.compile(r"(.*[ _-])?(id|uuid|guid)", re.IGNORECASE)
_CAMEL_ID = re.compile(r".*[a-z0-9](ID|Id|Uuid|UUID|Guid|GUID)")
_ZIP = re.compile(r"(.*[ _-])?(zip|zip[ _-]?code|postal[ _-]?code|post[ _-]?code|plz|postleitzahl)", re.IGNORECASE)
_PHONE = re.compile(
    r"(.*[ _-])?((tele|cell[ _-]?)?phone|tel|mobile|fax|telefon)([ _-]?(number|no|nr|num))?\.?", re.IGNORECASE
)
_DIGITS = re.compile(r"[0-9]+")
_DIALLED = re.compile(r"\+?[0-9() ./-]{6,}")

INDEX = "left out: an index that pandas has written, which `df.to_csv(path, index=False)` does not"
ROW_ID = "left out: it only identifies rows"


def is_index(name: str) -> bool:
    """Whether pandas names an index so that it writes into a file."""
    return bool(_INDEX.fullmatch(name))


def is_id(name: str) -> bool:
    """Whether a column is named like an id: `id`, `order_id`, `CustomerID`."""
    return bool(_ID.fullmatch(name) or _CAMEL_ID.fullmatch(name))


def codes(name: str, values: Sequence[Any]) -> str:
    """What the digits of a column stand for, such as "zip codes"; "" if they may be numbers.

    Args:
        name: the column's.
        values: some cells, none of them missing.
    """
    texts = [str(value) for value in values]
    whole = sum(bool(_DIGITS.fullmatch(text.removesuffix(".0"))) for text in texts) >= 0.9 * len(texts)
    if _PHONE.fullmatch(name) and sum(bool(_DIALLED.fullmatch(text)) for text in texts) >= 0.9 * len(texts):
        return "phone numbers"
    if whole and _ZIP.fullmatch(name):
        return "zip codes"
    if whole and any(len(text) > 1 and text[0] == "0" and text != "0.0" for text in texts):
        return "codes with leading zeros"
    return "ids" if is_id(name) else ""
