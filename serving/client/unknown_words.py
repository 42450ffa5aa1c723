"""Count the words of many rows that a model does not know, and warn of columns with many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from serving.client.model_info import UNKNOWN_WORDS, Answer

MOST = 0.1  # share of a column's words that may be unknown without a warning
FEW = 3  # words that a warning shows


class UnknownWords:
    """The words of the rows that were predicted: how many each column has, and those that the model does not know."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._unknown: dict[str, Counter[str]] = {}

    def add(self, row: Mapping[str, Any], answer: Answer) -> None:
        """Count the words of a row. `answer`: the model's, with its own count of unknown words."""
        self._rows.update(name for name, value in row.items() if value not in (None, ""))
        for name in answer.get(UNKNOWN_WORDS, {}):
            self._unknown.setdefault(name, Counter())[str(row[name])] += 1

    def warnings(self) -> list[str]:
        """A sentence for each column of which the model does not know more than the share MOST."""
        return [
            _warning(name, unknown, self._rows[name])
            for name, unknown in self._unknown.items()
            if unknown.total() > MOST * self._rows[name]
        ]


def _warning(name: str, unknown: Counter[str], rows: int) -> str:
    return (
        f"{name}: the model knows none of {_examples(unknown.most_common(FEW))}: {unknown.total():,} of {rows:,} words "
        f"({unknown.total() / rows:.0%}) are unknown to it: write them as in the training data, or train with such rows"
    )


def _examples(words: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{word!r} ({count:,})" for word, count in words)
