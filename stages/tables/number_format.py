"""The format of numbers in text: their decimal mark, and the mark between thousands."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class Marks(NamedTuple):
    """The marks in a number: before its fraction, and between its groups of three digits."""

    decimal: str = "."
    thousands: str = ""


PLAIN = Marks()  # Python's own


@cache
def numeral(marks: Marks) -> re.Pattern[str]:
    """The pattern of a number with these marks, valid for Arrow's regular expressions as well."""
    point, mark = map(re.escape, marks)
    groups = f"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+|" if mark else ""
    return re.compile(f"[+-]?(?:(?:{groups}[0-9]+)(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?")


def plain(text: str, marks: Marks) -> str:
    """A number in Python's form, such as `1234.5` for `1.234,5`; any other text as it is.

    Raises:
        ValueError: the text consists of digits and marks, but is not a number with these marks.
    """
    if numeral(marks).fullmatch(text):
        return text.replace(marks.thousands, "").replace(marks.decimal, ".")
    signs = {".", ",", *marks} - {""}
    if signs & set(text) and not set(text) - signs - set("0123456789+-eE"):
        between = f" and {marks.thousands!r} between thousands" if marks.thousands else ""
        raise ValueError(f"{text!r} is not a number with the decimal mark {marks.decimal!r}{between}: see data.options")
    return text


def plain_column(texts: pa.Array, marks: Marks) -> pa.Array:
    """`plain` of each text [N]."""
    written = pc.match_substring_regex(texts, f"^(?:{numeral(marks).pattern})$")
    numbers = pc.replace_substring(texts, marks.thousands, "") if marks.thousands else texts
    numbers = pc.replace_substring(numbers, marks.decimal, ".") if marks.decimal != "." else numbers
    if pc.all(written).as_py():
        return numbers
    for text in texts.filter(pc.invert(written)).unique().to_pylist():
        plain(text, marks)
    return pc.if_else(written, numbers, texts)
