"""The verdict on what was served, how fast, and beside the champion."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import command
from stages.gating import drift, robustness, slices
from stages.gating.controls import some_rows
from stages.gating.metrics import figures, measure, undefined
from stages.gating.verdict import (
    COST,
    DATA,
    NO_DIFFERENCE,
    SLICE,
    Difference,
    Estimate,
    Evidence,
    Figure,
    OfSlices,
    Policy,
    Slice,
    Tried,
    judge,
)
from stages.schema import Schema
from stages.settings import params
from stages.stats import medians
from stages.tables import distributions
from stages.tables.arrays import Split, open_split

NOBODY = {"champion": None, "state": "none", "outcome": ""}
FEW_ROUNDS = 20  # tell that a model beside itself is no other


def main(
    answers: Path,
    challenge: Path,
    times: Path,
    profile: Path,
    released: Path,
    arrays: Path,
    schema: Path,
    table: Path,
    champion_verdict: Path,
    verdict: Path,
) -> None:
    """Judge the served answers, print the verdict as a table and write it. A refusal is an answer, not an error."""
    said = params.load("gate").gate
    fitted, test = Schema.load(schema), open_split(arrays, "test")
    truth = test.target
    parity, champion = read(answers / "parity.json"), read(challenge / "challenge.json")
    timed, slow, beside = (read(times)[name] for name in ("one_client", "slow", "champion"))
    if beside and "lost" in beside:
        champion |= {"state": "lost", "outcome": beside["lost"]}
    bounds = plain(said.thresholds)
    asked = {by: OfSlices(plain(how.thresholds), how.margins, how.min_rows) for by, how in said.slices.items()}
    policy = Policy(bounds, said.margins, said.level, said.p99_ms, said.approval, asked)
    ours, theirs = (served(folder, fitted) for folder in (answers, challenge))
    measured, differences = measure(fitted, truth, ours, theirs, set(bounds), set(said.margins), said.level)
    evidence = Evidence(parity["release"], measured, parity["checks"], timed["p99_ms"], champion, differences)
    before = read(champion_verdict).get("slices", ())
    parts = list(sliced(table, test, said.slices, before, fitted, ours, theirs, said.level))
    changed = robustness.robustness(answers, fitted, said.robustness, said.level)
    _, same = measure(fitted, truth, ours, ours, (), set(said.margins), said.level, FEW_ROUNDS)
    bad, wrong = read(answers / "controls.json")["controls"], np.load(answers / "controls.npz", allow_pickle=False)
    controls = [*known_bad(evidence, [*bad, slow], wrong, fitted, truth), beside_itself(evidence, same)]
    old, new = map(distributions.load, (released, profile))
    drifted = drift.figures(old, new, champion["state"], drift.Bounds(**said.drift.model_dump()))
    disagreeing = robustness.disagreement(answers, challenge, fitted, said.max_disagreement, said.level)
    costing = costs(read(times), said.max_slower, said.max_larger, said.level)
    evidence = replace(evidence, slices=parts, figures=[*disagreeing, *costing, *changed, *drifted], controls=controls)
    result = judge(evidence, policy)
    with command.replacing(verdict) as whole:
        whole.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result, read(times))


def plain(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds as a verdict takes them."""
    return {name: bound.model_dump() for name, bound in thresholds.items()}


def read(path: Path) -> dict[str, Any]:
    """A stage's report."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def served(folder: Path, schema: Schema) -> np.ndarray | None:
    """The first output [N, *shape] of the answers, which the metrics are of; None where there are none."""
    answers = np.load(folder / "answers.npz", allow_pickle=False)
    first = next(iter(schema.outputs()))
    return answers.get(first, None)


def costs(times: Mapping[str, Any], max_slower: float, max_larger: float, level: float) -> list[Figure]:
    """The candidate's time and size over the champion's, where both were measured."""
    other = times["champion"]
    if other is None or "lost" in other:
        return []
    size = times["bytes"] / other["bytes"]
    larger = f"what is served is {size:.2f} times as large as the champion's; gate.max_larger allows {max_larger:g}"
    return [
        slower(other["ratios"], max_slower, level),
        Figure(COST, "size over the champion's", size, max_larger, larger),
    ]


def slower(ratios: Sequence[float], most: float, level: float) -> Figure:
    """How many times as long as the champion's, by session [N]; not judged where noise hides on which side it lies."""
    center, low, high = np.exp(medians.middle(np.log(ratios).tolist(), level)).round(4).tolist()
    reason = "asked in turn with the champion, it takes longer than gate.max_slower allows"
    hidden = (
        "the times do not tell whether it is slower than gate.max_slower allows: raise measure.requests, or measure"
    )
    hidden += " on a quieter machine"
    return Figure(
        COST,
        "latency over the champion's",
        center,
        most,
        reason,
        low,
        high,
        note=hidden if low <= most < high else "",
        stated=False,
    )


def sliced(
    source: Path,
    test: Split,
    asked: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
    schema: Schema,
    ours: np.ndarray,
    theirs: np.ndarray | None,
    level: float,
) -> Iterator[Slice]:
    """Each slice of the test rows, measured if it can be judged; and those that the champion was judged on `before`."""
    for by, how in asked.items():
        cells = slices.read(source, by, test.rows, how.bins is not None)
        compared = set(how.margins if theirs is not None else ())
        for value, at, span in slices.cut(cells, how.bins or slices.BINS):
            measured, differences, lacking = {}, {}, set[str]()
            if len(at) >= how.min_rows:
                his = None if theirs is None else theirs[at]
                measured, differences = measure(
                    schema, test.target[at], ours[at], his, set(how.thresholds), compared, level
                )
                lacking = undefined(schema, test.target[at])
            yield Slice(by, value, len(at), measured, differences, span, frozenset(lacking))
        yield from (Slice(by, value, 0) for value in slices.vanished(before, by, cells))


def known_bad(
    evidence: Evidence,
    controls: Iterable[Mapping[str, Any]],
    answers: Mapping[str, np.ndarray],
    schema: Schema,
    truth: np.ndarray,
) -> Iterator[Tried]:
    """The evidence on each control: what it did itself, and of the candidate what it was not asked for.

    One that a threshold must refuse has the candidate's parity: its own would refuse every wrong answer.
    """
    chosen = some_rows(len(truth))
    candidate = replace(evidence, champion=NOBODY, differences={}, slices=(), figures=())
    for control in controls:
        own = dict(control["evidence"])
        if control["name"] in answers:
            found = figures(schema, truth[chosen], answers[control["name"]])
            defined = found.keys() - undefined(schema, truth[chosen])
            own["measured"] = {**evidence.measured, **{name: Estimate(found[name]) for name in defined}}
        known = None if control["inapplicable"] else replace(candidate, **own)
        yield Tried(control["name"], control["what"], control["expected"], known, control["inapplicable"])


def beside_itself(evidence: Evidence, differences: Mapping[str, Difference]) -> Tried:
    """The candidate as its own champion."""
    told = {name: each for name, each in differences.items() if each.told}
    known = replace(evidence, champion={**NOBODY, "state": "answers"}, differences=told, slices=()) if told else None
    return Tried("itself", "the candidate", NO_DIFFERENCE, known, "" if told else "gate.margins names no metric")


def fared(criterion: Mapping[str, Any]) -> tuple[str, str]:
    """A word and its colour."""
    if not criterion["holds"]:
        return ("for a person", "yellow") if criterion["person"] else ("refused", "red")
    return ("not judged", "yellow") if criterion["note"] and criterion["value"] is None else ("holds", "green")


def show(result: dict[str, Any], times: Mapping[str, Any]) -> None:
    """The verdict as a table; measured times are shown here and stored by measure alone."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{result['verdict'].upper()}  {result['release']}", title_justify="left")
    for heading, side in (
        ("criterion", "left"),
        ("bound", "left"),
        ("value", "right"),
        ("interval", "left"),
        ("", "left"),
    ):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    timed = {"latency p99": times["one_client"]["p99_ms"]}
    timed |= {each.name: each.value for each in costs(times, 0.0, 0.0, result["level"]) if not each.stated}
    sliced = [each for each in result["criteria"] if each["about"] == SLICE]
    close = [each for each in result["criteria"] if each["about"] == DATA and each["holds"] and not each["note"]]
    for criterion in result["criteria"]:
        if criterion in close or (criterion in sliced and criterion["holds"]):
            continue
        value = timed.get(criterion["name"], criterion["value"])
        shown = "" if value is None else f"{value:.4g}"
        if value is not None and criterion["limits"] and criterion["champion"] is not None:
            shown = f"{abs(value):.4g} {'worse' if value < 0 else 'better'}"
        ends = ["" if end is None else f"{end:.4g}" for end in criterion["interval"] or ()]
        # as text, since a name such as recall[LABEL] would be read as markup
        table.add_row(Text(criterion["name"]), criterion["bound"], shown, " to ".join(ends), Text(*fared(criterion)))
    console = Console()
    console.print(table)
    for criterion in (each for each in result["criteria"] if not each["holds"]):
        console.print(Text(f"{fared(criterion)[0]}: {criterion['reason']}", "red"))
    if close:
        largest = max(each["value"] for each in close)
        console.print(f"distances between columns of data: {len(close)} hold, the largest {largest:.4g}")
    judged = sum(each["value"] is not None for each in sliced)
    counted = [f"{judged:,} criteria on {len(result['slices']):,} slices: see the page of the run"] if sliced else []
    notes = [each["note"] for each in result["criteria"] if each["note"] and not each["rows"]]
    for note in (result["champion"], *counted, *notes):
        console.print(Text(note))


if __name__ == "__main__":
    command.run(main)
