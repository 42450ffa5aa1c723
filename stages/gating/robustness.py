"""How often one answer is another: to an input that was changed a little, and from the champion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.gating.controls import some_rows
from stages.gating.verdict import COMPARED, COMPARISON, Figure
from stages.schema import Schema, target_kind
from stages.stats import proportions

ROBUSTNESS = "robustness"  # what criteria are about
DISAGREEMENT = f"{COMPARED}disagreement"

Outputs = Mapping[str, np.ndarray]  # name: [n, *shape]


def robustness(
    answers: Path, schema: Schema, bounds: Mapping[str, Mapping[str, Any]], level: float
) -> Iterator[Figure]:
    """For each change that verify made, the share of answers that it changed, and how far it moved them if bounded.

    `bounds`: by what is changed, then by how; each has `max_changed` and `max_moved`.
    """
    ours, changed = outputs(answers / "answers.npz"), outputs(answers / "changed.npz")
    some = {name: each[some_rows(len(each))] for name, each in ours.items()}
    for number, change in enumerate(json.loads((answers / "changed.json").read_text(encoding="utf-8"))["changes"]):
        bound = bounds.get(change["key"], {}).get(change["name"])
        if bound is None:  # judged again alone, as after a release, with other params by now
            continue
        after = {name: each[number] for name, each in changed.items()}
        share, low, high, told = differing(schema, some, after, level)
        what, key, most = change["what"], f"gate.robustness.{change['key']}.{change['name']}", bound.max_changed
        reason = f"{what} changes {told}; {key}.max_changed allows a share of {most:g}"
        yield Figure(ROBUSTNESS, what, share, most, reason, low, high)
        if bound.max_moved is not None:
            mean, most = moved(schema, some, after), bound.max_moved
            reason = f"{what} moves answers by {mean:.4g} on average; {key}.max_moved allows {most:g}"
            yield Figure(ROBUSTNESS, f"{what}: moved", mean, most, reason)


def disagreement(answers: Path, challenge: Path, schema: Schema, most: float, level: float) -> list[Figure]:
    """The share of test samples that are answered otherwise than by the champion; none where that has no answers."""
    theirs = outputs(challenge / "answers.npz")
    if not theirs:
        return []
    share, low, high, told = differing(schema, theirs, outputs(answers / "answers.npz"), level)
    reason = f"{told} are others than the champion's; gate.max_disagreement allows a share of {most:g}"
    return [Figure(COMPARISON, DISAGREEMENT, share, most, reason, low, high)]


def differing(schema: Schema, old: Outputs, new: Outputs, level: float) -> tuple[float, float, float, str]:
    """The share of answers that became others, as the target's kind tells it; its interval; and it as words."""
    other = ~target_kind(schema.target.kind).agree(old, new, schema.target.fitted)
    return float(other.mean()), *proportions.interval(other, level), f"{other.sum():,} of {len(other):,} answers"


def moved(schema: Schema, old: Outputs, new: Outputs) -> float:
    """How far answers went on average: a probability, or an amount in standard deviations of the target in training."""
    name, tensor = next(iter(schema.outputs().items()))
    return float(np.abs(new[name].astype(np.float64) - old[name]).max(1).mean() / tensor.scale)


def outputs(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name."""
    return dict(np.load(path, allow_pickle=False))
