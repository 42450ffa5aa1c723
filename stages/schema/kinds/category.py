"""One word out of many: a country, a job, a product number."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "str", True, True, "embedding"

MISSING, UNKNOWN = 0, 1  # codes; the words follow, then the buckets


@dataclass(frozen=True)
class Options:
    max_size: int = 10_000  # how many of the most frequent words have a code of their own
    min_count: int = 2  # training rows of a word; rarer words train the code of unknown ones
    buckets: int = 0  # codes that other words share, by their CRC-32; 0: all of them are unknown

    def __post_init__(self) -> None:
        for name, least in (("max_size", 1), ("min_count", 1), ("buckets", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


def raw(value: Any) -> str | None:
    """A value as text, or None: blank and NaN are missing."""
    return None if value is None or value != value or value == "" else str(value)


def facts(values: Iterable[str | None]) -> dict[str, np.ndarray]:
    """No facts: the word itself is in the table."""
    return {}


def fit(chunks: Iterable[Iterable[str | None]], options: Options) -> dict[str, Any]:
    """A code for each word, in order of falling frequency. `size` is one more than the largest code."""
    counts = Counter(chain.from_iterable(chunks))
    frequent = [word for word, count in counts.items() if word and count >= options.min_count]
    kept = sorted(frequent, key=lambda word: (-counts[word], word))
    codes = {word: code for code, word in enumerate(kept[: options.max_size], UNKNOWN + 1)}
    return {"codes": codes, "buckets": options.buckets, "size": UNKNOWN + 1 + len(codes) + options.buckets}


def transform(values: Iterable[str | None], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> codes int32 [N, 1]."""
    codes: dict[str, int] = fitted["codes"]
    buckets: int = fitted["buckets"]
    first = fitted["size"] - buckets

    def code(value: str | None) -> int:
        if not value:
            return MISSING
        other = first + zlib.crc32(value.encode()) % buckets if buckets else UNKNOWN
        return codes.get(value, other)

    rows = list(values)
    coded = {value: code(value) for value in set(rows)}
    return np.fromiter(map(coded.__getitem__, rows), np.int32, len(rows))[:, None]


def tensor(fitted: dict[str, Any]) -> Tensor:
    """int32 (1,)."""
    return Tensor("int32", (1,))
