"""Sentences and paragraphs, read word by word."""

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

PADDING, UNKNOWN, START = 0, 1, 2  # codes; then come the words
_WORD = re.compile(r"[^\W\d_]+|\d|[^\w\s]")  # letters in a row, a digit, a sign
_LONGEST = 64  # characters that a word of the kept length may take up: what lies beyond is not even split


@dataclass(frozen=True)
class Options:
    max_size: int = 20_000  # words that have a code, the most frequent ones
    min_count: int = 2  # in the training texts; a rarer word counts as unknown, which thereby is learnt
    max_length: int = 128  # words that are read of a text; fewer where nearly all are shorter

    def __post_init__(self) -> None:
        for name in ("max_size", "min_count", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def raw(value: Any) -> str | None:
    """As text; blank and NaN are missing."""
    return None if value is None or value != value or not str(value).strip() else str(value)


def facts(values: Iterable[str | None]) -> dict[str, np.ndarray]:
    """Length in characters, words, and the script of most letters, such as LATIN; None where there is no letter."""
    rows = [_facts(value or "") for value in values]
    length, words, script = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "length": np.array(length, np.int64),
        "words": np.array(words, np.int64),
        "script": np.array(script, object),
    }


def fit(chunks: Iterable[Iterable[str | None]], options: Options) -> dict[str, Any]:
    """A code for each word, by falling frequency, and how many words are read: enough for 99 texts of 100."""
    counts: Counter[str] = Counter()
    lengths: list[int] = []
    for chunk in chunks:
        for value in chunk:
            split = words(value or "", options.max_length)
            counts.update(split)
            lengths.append(len(split))
    if not any(lengths):
        raise ValueError("no training text has a word: take the column out of schema.features")
    often = [word for word, count in counts.items() if count >= options.min_count]
    kept = sorted(often, key=lambda word: (-counts[word], word))[: options.max_size]
    length = max(1, int(np.quantile(np.array(lengths), 0.99, method="higher")))
    codes = {word: code for code, word in enumerate(kept, START + 1)}
    return {"codes": codes, "size": START + 1 + len(codes), "length": length}


def transform(values: Iterable[str | None], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> codes int32 [N, 1 + length]: a start, the words, padding."""
    rows = list(values)
    codes, length = fitted["codes"], fitted["length"]
    array = np.zeros((len(rows), 1 + length), np.int32)
    array[:, 0] = START
    for row, value in enumerate(rows):
        found = [codes.get(word, UNKNOWN) for word in words(value or "", length)]
        array[row, 1 : 1 + len(found)] = found
    return array


def tensor(fitted: dict[str, Any]) -> Tensor:
    """int32 (1 + length,)."""
    return Tensor("int32", (1 + fitted["length"],))


def words(text: str, most: int) -> list[str]:
    """The first words of a text, in lower case and composed (NFC)."""
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
    """The first word of its Unicode name, which is its script's for nearly all letters."""
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
