"""Sentences and paragraphs, as sequences of words."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "str", False, True, "gru"

PADDING, UNKNOWN, START = 0, 1, 2  # codes; the words follow
_WORD = re.compile(r"[^\W\d_]+|\d|[^\w\s]")  # a run of letters, a digit, or a sign
_LONGEST = 64  # characters per word; the text beyond this, times the number of words, is ignored


@dataclass(frozen=True)
class Options:
    """Options of a column of texts in params.yaml."""

    max_size: int = 20_000  # how many of the most frequent words have a code
    min_count: int = 2  # occurrences of a word in the training texts; rarer words train the code of unknown ones
    max_length: int = 128  # words of a text that are read; fewer if nearly all texts are shorter

    def __post_init__(self) -> None:
        for name in ("max_size", "min_count", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def raw(value: Any) -> str | None:
    """A value as text, or None: blank and NaN are missing."""
    return None if value is None or value != value or not str(value).strip() else str(value)


def facts(values: Iterable[str | None]) -> dict[str, np.ndarray]:
    """Length in characters, number of words, and the script of most letters, such as LATIN; None without letters."""
    rows = [_facts(value or "") for value in values]
    length, words, script = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "length": np.array(length, np.int64),
        "words": np.array(words, np.int64),
        "script": np.array(script, object),
    }


def fit(chunks: Iterable[Iterable[str | None]], options: Options) -> dict[str, Any]:
    """A code for each word, in order of falling frequency; and `length`, which 99 % of the texts do not exceed."""
    counts: Counter[str] = Counter()
    lengths: list[int] = []
    for chunk in chunks:
        for value in chunk:
            split = words(value or "", options.max_length)
            counts.update(split)
            lengths.append(len(split))
    if not any(lengths):
        raise ValueError("no training text has a word: take the column out of schema.features")
    frequent = [word for word, count in counts.items() if count >= options.min_count]
    kept = sorted(frequent, key=lambda word: (-counts[word], word))[: options.max_size]
    length = max(1, int(np.quantile(np.array(lengths), 0.99, method="higher")))
    codes = {word: code for code, word in enumerate(kept, START + 1)}
    return {"codes": codes, "size": START + 1 + len(codes), "length": length}


def transform(values: Iterable[str | None], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> codes int32 [N, 1 + length]: START, the words, PADDING."""
    rows = list(values)
    codes, length = fitted["codes"], fitted["length"]
    array = np.zeros((len(rows), 1 + length), np.int32)
    array[:, 0] = START
    for row, value in enumerate(rows):
        coded = [codes.get(word, UNKNOWN) for word in words(value or "", length)]
        array[row, 1 : 1 + len(coded)] = coded
    return array


def tensor(fitted: dict[str, Any]) -> Tensor:
    """int32 (1 + length,)."""
    return Tensor("int32", (1 + fitted["length"],))


def words(text: str, most: int) -> list[str]:
    """At most the first `most` words of a text, in lower case and Unicode form NFC."""
    plain = unicodedata.normalize("NFC", text[: most * _LONGEST]).lower()
    return _WORD.findall(plain)[:most]


def _facts(text: str) -> tuple[int, int, str | None]:
    scripts: Counter[str] = Counter()
    for char, count in Counter(text[:10_000]).items():
        if char.isalpha():
            scripts[_script(char)] += count
    most = max(sorted(scripts), key=lambda script: scripts[script], default=None)
    return len(text), len(text.split()), most


@functools.cache
def _script(letter: str) -> str:
    """The first word of a letter's Unicode name, which names the script of nearly all letters."""
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
