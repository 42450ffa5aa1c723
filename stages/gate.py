"""The verdict: a total, pure function of what was served, how fast, and what params ask for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages import command, params, settings
from stages.arrays import open_split
from stages.schema import Schema


@dataclass(frozen=True)
class Criterion:
    """One reason to pass or to refuse. `value` is None where stating it would make equal outcomes differ."""

    name: str
    bound: str
    value: float | None
    holds: bool
    reason: str = ""


def main(answers: Path, challenge: Path, times: Path, arrays: Path, schema: Path, verdict: Path) -> None:
    """Judge the served answers, print the verdict as a table and write it. A refusal is an answer, not an error."""
    said = params.load("gate").gate
    parity = json.loads((answers / "parity.json").read_text(encoding="utf-8"))
    measured = measure(dict(np.load(answers / "answers.npz", allow_pickle=False)), arrays, schema)
    timed = json.loads(times.read_text(encoding="utf-8"))
    bounds = {name: bound.model_dump() for name, bound in said.thresholds.items()}
    criteria = judge(measured, bounds, parity["checks"], timed["one_client"]["p99_ms"], said.p99_ms)
    champion = json.loads(challenge.read_text(encoding="utf-8"))
    result = conclude(parity["release"], criteria, champion["outcome"])
    with command.replacing(verdict) as whole:
        whole.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result, timed["one_client"]["p99_ms"])


def measure(served: Mapping[str, np.ndarray], arrays: Path, schema_path: Path) -> dict[str, float]:
    """Every metric of the served answers, by the definitions that training uses."""
    import torch

    from stages.networks import network

    schema = Schema.load(schema_path)
    head = network.head_module(schema.target)
    metrics = head.metrics(schema.target)
    first = next(iter(schema.outputs()))
    metrics.update(torch.from_numpy(served[first]), torch.from_numpy(open_split(arrays, "test").target))
    return head.scalars(metrics.compute(), schema.target)


def judge(
    measured: Mapping[str, float],
    bounds: Mapping[str, Mapping[str, float | None]],
    checks: list[dict[str, Any]],
    p99_ms: float,
    p99_bound_ms: float,
) -> list[Criterion]:
    """All criteria. Anything that cannot be judged does not hold."""
    criteria = [_threshold(name, measured, bound) for name, bound in bounds.items()]
    if not bounds:
        criteria.append(
            Criterion(
                "thresholds",
                "at least one",
                0.0,
                False,
                "gate.thresholds in params.yaml is empty: nothing could be refused",
            )
        )
    if not checks:
        criteria.append(Criterion("served", "as the checkpoint", None, False, "no answer was held against it"))
    for check in checks:
        reason = "" if check["holds"] else "the served answers are not the checkpoint's: parity.json tells by how much"
        criteria.append(
            Criterion(f"served: {check['name']}", "as the checkpoint", check["max_delta"], check["holds"], reason)
        )
    fast = p99_ms <= p99_bound_ms
    reason = "" if fast else "one sample takes longer than gate.p99_ms allows"
    criteria.append(Criterion("latency p99", f"at most {p99_bound_ms:g} ms", None, fast, reason))
    return criteria


def conclude(release: str, criteria: list[Criterion], champion: str) -> dict[str, Any]:
    """The verdict: pass only if every criterion holds."""
    passed = all(criterion.holds for criterion in criteria)
    return {
        "version": 1,
        "verdict": "pass" if passed else "refuse",
        "release": release,
        "champion": champion,
        "criteria": [asdict(criterion) for criterion in criteria],
    }


def show(result: dict[str, Any], p99_ms: float) -> None:
    """The verdict as a table; measured times are shown here and stored by measure alone."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{result['verdict'].upper()}  {result['release']}", title_justify="left")
    for heading, side in (("criterion", "left"), ("bound", "left"), ("value", "right"), ("", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for criterion in result["criteria"]:
        value = p99_ms if criterion["name"] == "latency p99" else criterion["value"]
        shown = "" if value is None else f"{value:.4g}"
        outcome = Text("holds", "green") if criterion["holds"] else Text(f"refused: {criterion['reason']}", "red")
        # as text, since a name such as recall[LABEL] would be read as markup
        table.add_row(Text(criterion["name"]), criterion["bound"], shown, outcome)
    Console().print(table)


def _threshold(name: str, measured: Mapping[str, float], bound: Mapping[str, float | None]) -> Criterion:
    low, high = bound["min"], bound["max"]
    limits = ("at least", low), ("at most", high)
    said = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
    if name not in measured:
        known = settings.nearest(name, measured)
        return Criterion(name, said, None, False, f"there is no metric {name!r}{known}")
    value = measured[name]
    holds = np.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
    reason = "" if holds else f"{name} is {value:.4f}, which is not {said}"
    return Criterion(name, said, round(value, 6) if np.isfinite(value) else None, bool(holds), reason)


if __name__ == "__main__":
    command.run(main)
