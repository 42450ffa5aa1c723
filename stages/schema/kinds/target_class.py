"""One label out of a fixed set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from stages.schema import Tensor

RAW = "str"
SPOILT = "labels shuffled"


@dataclass(frozen=True)
class Options:
    pass


def raw(value: Any) -> str | None:
    """As text; blank is missing."""
    text = "" if value is None or value != value else str(value)
    return text or None


def strata(values: Iterable[str]) -> np.ndarray:
    """[N] -> what every split shall have its share of: the labels themselves."""
    return np.array(list(values), object)


def fit(chunks: Iterable[Iterable[str]], options: Options) -> dict[str, Any]:
    """Labels in numeric order if all are whole numbers, else in that of their text; and how often each occurs.

    Raises:
        ValueError: there are not two labels to tell apart.
    """
    counts = Counter(chain.from_iterable(chunks))
    if len(counts) < 2:
        raise ValueError(f"all rows are labeled {', '.join(counts)}: a classifier needs two labels")
    numeric = all(label.removeprefix("-").isdecimal() for label in counts)
    labels = sorted(counts, key=lambda label: (int(label) if numeric else 0, label))
    return {"labels": labels, "counts": [counts[label] for label in labels]}


def transform(values: Iterable[str], fitted: dict[str, Any]) -> np.ndarray:
    """Labels [N] -> codes int64 [N].

    Raises:
        ValueError: a label that the training data do not have.
    """
    codes = {label: code for code, label in enumerate(fitted["labels"])}
    rows = list(values)
    unknown = sorted(map(str, set(rows) - codes.keys()))
    if unknown:
        raise ValueError(f"no training sample is labelled {', '.join(unknown)}")
    return np.fromiter(map(codes.__getitem__, rows), np.int64, len(rows))


def outputs(fitted: dict[str, Any]) -> dict[str, Tensor]:
    """probabilities: float32 (C,), one for each label."""
    return {"probabilities": Tensor("float32", (len(fitted["labels"]),), labels=tuple(fitted["labels"]))}


def spoilt(fitted: dict[str, Any]) -> dict[str, tuple[list[int], float, float]]:
    """How a control (stages/gating/controls.py) answers wrongly: each label has the probability of the one before it.

    By output: the new order of its last axis, a factor, and what is added then.
    """
    labels = len(fitted["labels"])
    return {"probabilities": ([(code - 1) % labels for code in range(labels)], 1.0, 0.0)}


def answers(outputs: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> list[dict[str, Any]]:
    """{"probabilities": [N, C]} -> for each row its likeliest label with that probability."""
    best = outputs["probabilities"].argmax(1)
    return [
        {"label": fitted["labels"][code], "probability": float(row[code])}
        for code, row in zip(best, outputs["probabilities"], strict=True)
    ]


def agree(live: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> np.ndarray:
    """Answers {"probabilities": [N, C]} of two models to the same rows -> bool [N]: both name the same label."""
    return np.asarray(live["probabilities"].argmax(1) == new["probabilities"].argmax(1))
