"""Expect an error by its code, which stays when its sentence is reworded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CODE = re.compile(r"^(?:.*: )?error: .*  \[([a-z-]+)\]$", re.MULTILINE)


@contextmanager
def failing(kind: type[Exception], code: str, *values: str) -> Iterator[pytest.ExceptionInfo]:
    """Expect an error of this kind and code. Its sentence names these values: a file, a row, a key, a number."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, str(caught.value)
    names(str(caught.value), *values)


def names(sentence: str, *values: str) -> None:
    """Fail unless a sentence names all these values."""
    assert [value for value in values if value not in sentence] == [], sentence


def codes(output: str) -> list[str]:
    """The codes of the errors that a command has printed."""
    return CODE.findall(output)
