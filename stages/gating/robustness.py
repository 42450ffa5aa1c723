"""How often predictions differ: for inputs that were changed a little, and from the champion's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.gating.controls import some_rows
from stages.gating.evidence import COMPARED, COMPARISON, Figure
from stages.schema import Schema, target_kind
from stages.stats import proportions

ROBUSTNESS = "robustness"  # the kind of criterion
DISAGREEMENT = f"{COMPARED}disagreement"

Outputs = Mapping[str, np.ndarray]  # name: [n, *shape]


def robustness(
    answers: Path, schema: Schema, bounds: Mapping[str, Mapping[str, Any]], level: float
) -> Iterator[Figure]:
    """For each change that verify made, the share of answers that it changed, and how far it moved them if bounded.

    `bounds`: by column or kind, then by the change's name; each has `max_changed` and `max_moved`.
    """
    ours, changed = outputs(answers / "answers.npz"), outputs(answers / "changed.npz")
    before = {name: output[some_rows(len(output))] for name, output in ours.items()}
    for number, change in enumerate(json.loads((answers / "changed.json").read_text(encoding="utf-8"))["changes"]):
        bound = bounds.get(change["key"], {}).get(change["name"])
        if bound is None:  # the gate alone runs again, and params have changed since
            continue
        after = {name: output[number] for name, output in changed.items()}
        share, low, high, count = differing(schema, before, after, level)
        what, key, most = change["what"], f"gate.robustness.{change['key']}.{change['name']}", bound.max_changed
        reason = f"{what} changes {count}; {key}.max_changed allows a share of {most:g}"
        yield Figure(ROBUSTNESS, what, share, most, reason, low, high)
        if bound.max_moved is not None:
            mean, most = moved(schema, before, after), bound.max_moved
            reason = f"{what} moves answers by {mean:.4g} on average; {key}.max_moved allows {most:g}"
            yield Figure(ROBUSTNESS, f"{what}: moved", mean, most, reason)


def disagreement(answers: Path, challenge: Path, schema: Schema, most: float, level: float) -> list[Figure]:
    """The share of test samples whose answers differ from the champion's; empty if the champion has no answers."""
    theirs = outputs(challenge / "answers.npz")
    if not theirs:
        return []
    share, low, high, count = differing(schema, theirs, outputs(answers / "answers.npz"), level)
    reason = f"{count} differ from the champion's; gate.max_disagreement allows a share of {most:g}"
    return [Figure(COMPARISON, DISAGREEMENT, share, most, reason, low, high)]


def differing(schema: Schema, old: Outputs, new: Outputs, level: float) -> tuple[float, float, float, str]:
    """The share of answers that differ by the rule of the target's kind, its interval, and the count in words."""
    different = ~target_kind(schema.target.kind).agree(old, new, schema.target.fitted)
    count = f"{different.sum():,} of {len(different):,} answers"
    return float(different.mean()), *proportions.interval(different, level), count


def moved(schema: Schema, old: Outputs, new: Outputs) -> float:
    """The mean change of the answers: in probability, or in standard deviations of the training target."""
    name, tensor = next(iter(schema.outputs().items()))
    return float(np.abs(new[name].astype(np.float64) - old[name]).max(1).mean() / tensor.scale)


def outputs(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file, by name."""
    return dict(np.load(path, allow_pickle=False))
