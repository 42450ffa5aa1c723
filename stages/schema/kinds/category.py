"""One word out of many: a country, a job, a product number."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from stages.schema import Tensor, spelling

RAW, PACKED, OPTIONAL, ENCODER = "str", True, True, "embedding"

MISSING, UNKNOWN = 0, 1  # codes; the words follow, then the buckets
MOST_PUBLIC = 20_000  # words of a vocabulary that clients learn of


@dataclass(frozen=True)
class Options:
    """Options of a category in params.yaml."""

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
    """A code for each word, in order of falling frequency. `size` is one more than the largest code.

    `spelling` has the rules by which words are one, if any hold for these.
    """
    counts = Counter(word for word in chain.from_iterable(chunks) if word)
    rules = spelling.rules(counts.keys())
    spelled = spelling.merged(counts, rules)
    frequent = [word for word, rows in spelled.items() if rows.total() >= options.min_count]
    kept = sorted(frequent, key=lambda word: (-spelled[word].total(), min(spelled[word])))
    codes = {word: code for code, word in enumerate(kept[: options.max_size], UNKNOWN + 1)}
    fitted = {"codes": codes, "buckets": options.buckets, "size": UNKNOWN + 1 + len(codes) + options.buckets}
    return fitted | ({"spelling": rules} if rules else {})


def transform(values: Iterable[str | None], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> codes int32 [N, 1]."""
    codes: dict[str, int] = fitted["codes"]
    buckets: int = fitted["buckets"]
    rules = fitted.get("spelling", ())
    first = fitted["size"] - buckets

    def code(value: str | None) -> int:
        if not value:
            return MISSING
        word = spelling.canonical(value, rules)
        other = first + zlib.crc32(word.encode()) % buckets if buckets else UNKNOWN
        return codes.get(word, other)

    rows = list(values)
    coded = {value: code(value) for value in set(rows)}
    return np.fromiter(map(coded.__getitem__, rows), np.int32, len(rows))[:, None]


def tensor(fitted: dict[str, Any]) -> Tensor:
    """int32 (1,)."""
    return Tensor("int32", (1,))


def public(fitted: dict[str, Any]) -> dict[str, Any]:
    """The CRC-32 of each known word, for `unknown` at a client; {} if they are too many or buckets share the rest."""
    if "codes" not in fitted or fitted["buckets"] or len(fitted["codes"]) > MOST_PUBLIC:
        return {}
    known = np.array(sorted(zlib.crc32(word.encode()) for word in fitted["codes"]), "<u4")
    rules = {"spelling": fitted["spelling"]} if "spelling" in fitted else {}
    return {"known": base64.b64encode(known.tobytes()).decode()} | rules


def unknown(described: dict[str, Any]) -> Callable[[str | None], bool] | None:
    """Whether a word is unknown to the model that `public` describes; None if that cannot be told."""
    if "known" not in described:
        return None
    known = frozenset(np.frombuffer(base64.b64decode(described["known"]), "<u4").tolist())
    rules = described.get("spelling", ())
    return lambda value: bool(value) and zlib.crc32(spelling.canonical(str(value), rules).encode()) not in known
