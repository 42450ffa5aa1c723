"""A class out of a fixed set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from stages.schema import Tensor, spelling

RAW = "str"
SPOILED = "labels shuffled"


@dataclass(frozen=True)
class Options:
    """A class has no options."""


def raw(value: Any) -> str | None:
    """A label as text, or None: blank and NaN are missing."""
    text = "" if value is None or value != value else str(value)
    return text or None


def strata(values: Iterable[str]) -> np.ndarray:
    """[N] -> the strata for a split: the labels themselves."""
    return np.array(list(values), object)


def fit(chunks: Iterable[Iterable[str]], options: Options) -> dict[str, Any]:
    """The classes, in numeric order if all are whole numbers, else sorted as text; and the count of each.

    `spelling` has the rules by which labels are one, if any hold. Such a class is called by its plain spelling, as `2`
    for `2` and `2.0`, if a label has it, else by the most frequent one.

    Raises:
        ValueError: there are fewer than two classes.
    """
    words = Counter(chain.from_iterable(chunks))
    rules = spelling.rules(words.keys())
    counts = {
        min(rows, key=lambda label: (label != plain, -rows[label], label)): rows.total()
        for plain, rows in spelling.merged(words, rules).items()
    }
    if len(counts) < 2:
        raise ValueError(
            f"all rows are labeled {', '.join(counts)}: a classifier needs two classes: add rows of another"
        )
    numeric = all(label.removeprefix("-").isdecimal() for label in counts)
    labels = sorted(counts, key=lambda label: (int(label) if numeric else 0, label))
    fitted = {"labels": labels, "counts": [counts[label] for label in labels]}
    return fitted | ({"spelling": rules} if rules else {})


def transform(values: Iterable[str], fitted: dict[str, Any]) -> np.ndarray:
    """Labels [N] -> codes int64 [N].

    Raises:
        ValueError: a label is not among the classes of the training data.
    """
    rules = fitted.get("spelling", ())
    known = {spelling.canonical(label, rules): code for code, label in enumerate(fitted["labels"])}
    rows = list(values)
    codes = {label: known.get(spelling.canonical(label, rules)) for label in set(rows)}
    unknown = sorted(str(label) for label, code in codes.items() if code is None)
    if unknown:
        raise ValueError(f"no training sample is labeled {', '.join(unknown)}")
    return np.fromiter(map(codes.__getitem__, rows), np.int64, len(rows))


def outputs(fitted: dict[str, Any]) -> dict[str, Tensor]:
    """probabilities: float32 (C,), one for each class."""
    return {"probabilities": Tensor("float32", (len(fitted["labels"]),), labels=tuple(fitted["labels"]))}


def spoiled(fitted: dict[str, Any]) -> dict[str, tuple[list[int], float, float]]:
    """How a control (stages/gating/controls.py) predicts wrongly: each class has the probability of the one before it.

    Output -> the new order of its last axis, then a factor, then a number to add.
    """
    classes = len(fitted["labels"])
    return {"probabilities": ([(code - 1) % classes for code in range(classes)], 1.0, 0.0)}


def predictions(outputs: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> list[dict[str, Any]]:
    """{"probabilities": [N, C]} -> the most probable class of each row, with its probability."""
    best = outputs["probabilities"].argmax(1)
    return [
        {"label": fitted["labels"][code], "probability": float(row[code])}
        for code, row in zip(best, outputs["probabilities"], strict=True)
    ]


def agree(live: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> np.ndarray:
    """Outputs {"probabilities": [N, C]} of two models for the same rows -> whether both predict the same class, [N]."""
    return np.asarray(live["probabilities"].argmax(1) == new["probabilities"].argmax(1))
