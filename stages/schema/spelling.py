"""One spelling for each word of a vocabulary: `2` for `2.0`, `true` for `TRUE`, `2024-12-31` for its midnight.

The training words decide which rules hold, and the schema records them. So a zip code keeps its leading zero, and a
release made before there were rules goes on reading words as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

EXACT = 2**53  # a whole number beyond this that was a float may have been another one
_NUMERIC = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(  # no leading zero as in zip codes, no + as in phone numbers, no 1.10 as in versions
    r"-?(?:0|[1-9][0-9]*)(?:\.0+|\.[0-9]*[1-9])?"
)
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.0+)?")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.([0-9]+))?(?: ?(Z|[+-][0-9]{2}:?[0-9]{2}))?)?"
)


def rules(words: Collection[str]) -> list[str]:
    """The names of the rules that hold for a vocabulary; [] if its words are only words."""
    return [name for name, (holds, _) in _RULES.items() if holds(words)]


def canonical(word: str, names: Sequence[str]) -> str:
    """The one spelling of a word under these rules."""
    for name in names:
        word = _RULES[name][1](word)
    return word


def merged(counts: Mapping[str, int], names: Sequence[str]) -> dict[str, Counter[str]]:
    """Canonical spelling -> the spellings of a vocabulary that it stands for, with their counts."""
    spellings: dict[str, Counter[str]] = {}
    for word, count in counts.items():
        spellings.setdefault(canonical(word, names), Counter())[word] += count
    return spellings


def _are_numbers(words: Collection[str]) -> bool:
    """Whether numbers are among the words, each written plainly.

    With fractions, as in versions, `1` and `1.0` may be two words.
    """
    numbers = [word for word in words if _NUMERIC.fullmatch(word)]
    if not numbers or not all(map(_PLAIN.fullmatch, numbers)):
        return False
    return all(map(_WHOLE.fullmatch, numbers)) or len(set(map(_number, numbers))) == len(numbers)


def _number(word: str) -> str:
    match = _WHOLE.fullmatch(word)
    if match is None or (match[2] and (len(match[1]) > len(str(-EXACT)) or abs(int(match[1])) > EXACT)):
        return word
    return "0" if match[1] == "-0" else match[1]


def _are_booleans(words: Collection[str]) -> bool:
    return any(_boolean(word) in _BOOLEANS for word in words)


def _boolean(word: str) -> str:
    lower = word.lower() if word.isascii() else word
    return lower if lower in _BOOLEANS else word


def _are_times(words: Collection[str]) -> bool:
    return any(map(_TIME.fullmatch, words))


def _time(word: str) -> str:
    """A date; with `T`, seconds and the zone if the time is not midnight without a zone."""
    match = _TIME.fullmatch(word)
    if match is None:
        return word
    date, minutes, seconds, fraction, zone = match.groups()
    fraction = (fraction or "").rstrip("0")
    clock = f"{minutes or '00:00'}{seconds or ':00'}" + (f".{fraction}" if fraction else "")
    zone = {"+00:00": "Z", "+0000": "Z", "-00:00": "Z", None: ""}.get(zone, zone)
    return date if clock == "00:00:00" and not zone else f"{date}T{clock}{zone}"


_BOOLEANS = ("true", "false")
_RULES: dict[str, tuple[Callable[[Collection[str]], bool], Callable[[str], str]]] = {
    "number": (_are_numbers, _number),
    "boolean": (_are_booleans, _boolean),
    "time": (_are_times, _time),
}
