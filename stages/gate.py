"""Judge the served answers, their latency, and how they compare with the champion's."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import command
from stages.core.files import replacing
from stages.evaluation.yardsticks import CONSTANT, NAMES, Yardsticks
from stages.evaluation.yardsticks import load as load_yardsticks
from stages.gating import drift, robustness, slices
from stages.gating.controls import some_rows
from stages.gating.evidence import (
    COST,
    DATA,
    NO_DIFFERENCE,
    SLICE,
    YARDSTICK,
    ControlEvidence,
    Difference,
    Estimate,
    Evidence,
    Figure,
    Policy,
    Slice,
    SliceBounds,
    YardstickBounds,
)
from stages.gating.metrics import figures, measure, undefined
from stages.gating.verdict import judge
from stages.gating.wording import beside
from stages.gating.yardsticks import FEW_ROUNDS as ROUNDS_OF_CONTROLS
from stages.gating.yardsticks import among, compare, untested
from stages.schema import Schema
from stages.settings import params, section
from stages.settings.gate import Bound, Gate, Slices
from stages.stats import medians
from stages.tables import distributions
from stages.tables.arrays import Split, open_split

NO_CHAMPION = {"champion": None, "state": "none", "outcome": ""}
FEW_ROUNDS = 20  # are enough to show that a model does not differ from itself


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    gate: Gate


def main(
    answers: Path,
    challenge: Path,
    times: Path,
    statistics: Path,
    released_statistics: Path,
    arrays: Path,
    schema: Path,
    table: Path,
    champion_verdict: Path,
    verdict: Path,
    yardsticks: Path,
) -> None:
    """Judge the served answers, print the verdict as a table and write it. A refusal is a verdict, not an error."""
    settings = params.load("gate", Parameters).gate
    fitted, test = Schema.load(schema), open_split(arrays, "test")
    truth = test.target
    parity, champion = read(answers / "parity.json"), read(challenge / "challenge.json")
    timed, slow, champion_times = (read(times)[name] for name in ("one_client", "slow", "champion"))
    if champion_times and "lost" in champion_times:
        champion |= {"state": "lost", "outcome": champion_times["lost"]}
    thresholds = plain(settings.thresholds)
    slice_bounds = {
        by: SliceBounds(plain(bounds.thresholds), bounds.margins, bounds.min_rows)
        for by, bounds in settings.slices.items()
    }
    simple, relative = load_yardsticks(yardsticks), YardstickBounds(**settings.yardsticks.model_dump())
    policy = Policy(
        thresholds, settings.margins, settings.level, settings.p99_ms, settings.approval, slice_bounds, relative
    )
    ours, theirs = served(answers, fitted), served(challenge, fitted)
    assert ours is not None  # verify has written them
    measured, differences = measure(fitted, truth, ours, theirs, set(thresholds), set(settings.margins), settings.level)
    evidence = Evidence(parity["release"], measured, parity["checks"], timed["p99_ms"], champion, differences)
    evidence = replace(
        evidence,
        yardsticks=compare(fitted, truth, ours, simple, settings.level),
        untested=untested(fitted, truth),
    )
    before = read(champion_verdict).get("slices", ())
    parts = list(sliced(table, test, settings.slices, before, fitted, ours, theirs, settings.level))
    changed = robustness.robustness(answers, fitted, settings.robustness, settings.level)
    _, same = measure(fitted, truth, ours, ours, (), set(settings.margins), settings.level, FEW_ROUNDS)
    bad, wrong = read(answers / "controls.json")["controls"], np.load(answers / "controls.npz", allow_pickle=False)
    controls = [
        *known_bad(evidence, [*bad, slow], wrong, fitted, truth, simple, settings.level),
        constant_answer(evidence, fitted, truth, simple, policy),
        compare_with_itself(evidence, same),
    ]
    old, new = map(distributions.load, (released_statistics, statistics))
    drifted = drift.figures(old, new, champion["state"], drift.Bounds(**settings.drift.model_dump()))
    disagreement = robustness.disagreement(answers, challenge, fitted, settings.max_disagreement, settings.level)
    cost = costs(read(times), settings.max_slower, settings.max_larger, settings.level)
    evidence = replace(evidence, slices=parts, figures=[*disagreement, *cost, *changed, *drifted], controls=controls)
    result = judge(evidence, policy)
    with replacing(verdict) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result, read(times))


def plain(thresholds: Mapping[str, Bound]) -> dict[str, dict[str, float | None]]:
    """Bounds of params.yaml as the plain values that a policy holds."""
    return {name: bound.model_dump() for name, bound in thresholds.items()}


def read(path: Path) -> dict[str, Any]:
    """Read a stage's JSON report."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def served(folder: Path, schema: Schema) -> np.ndarray | None:
    """The first output [N, *shape] of the answers, which the metrics measure; None if there are no answers."""
    answers = np.load(folder / "answers.npz", allow_pickle=False)
    first = next(iter(schema.outputs()))
    found: np.ndarray | None = answers.get(first, None)
    return found


def costs(times: Mapping[str, Any], max_slower: float, max_larger: float, level: float) -> list[Figure]:
    """The candidate's latency and size divided by the champion's; empty unless both were measured."""
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
    """The latency divided by the champion's, of ratios by session [N]; not judged if the bound is in its interval."""
    center, low, high = np.exp(medians.middle(np.log(ratios).tolist(), level)).round(4).tolist()
    reason = "timed in turn with the champion, it takes longer than gate.max_slower allows"
    note = "the times are too noisy to say whether it is slower than gate.max_slower allows: raise measure.requests,"
    note += " or measure on a quieter machine"
    return Figure(
        COST,
        "latency over the champion's",
        center,
        most,
        reason,
        low,
        high,
        note=note if low <= most < high else "",
        stated=False,
    )


def sliced(
    source: Path,
    test: Split,
    by_column: Mapping[str, Slices],
    before: Sequence[Mapping[str, Any]],
    schema: Schema,
    ours: np.ndarray,
    theirs: np.ndarray | None,
    level: float,
) -> Iterator[Slice]:
    """Each slice of the test rows, measured if it has enough rows; and each slice `before` that has no rows now.

    `by_column`: `gate.slices` of params.yaml. `before`: the slices that the champion was judged on.
    """
    for by, bounds in by_column.items():
        cells = slices.read(source, by, test.rows, bounds.bins is not None)
        compared = set(bounds.margins if theirs is not None else ())
        for value, at, span in slices.cut(cells, bounds.bins or slices.BINS):
            measured: dict[str, Estimate] = {}
            differences: dict[str, Difference] = {}
            without = set[str]()
            if len(at) >= bounds.min_rows:
                champions = None if theirs is None else theirs[at]
                measured, differences = measure(
                    schema, test.target[at], ours[at], champions, set(bounds.thresholds), compared, level
                )
                without = undefined(schema, test.target[at])
            yield Slice(by, value, len(at), measured, differences, span, frozenset(without))
        yield from (Slice(by, value, 0) for value in slices.vanished(before, by, cells))


def known_bad(
    evidence: Evidence,
    controls: Iterable[Mapping[str, Any]],
    answers: Mapping[str, np.ndarray],
    schema: Schema,
    truth: np.ndarray,
    simple: Yardsticks,
    level: float,
) -> Iterator[ControlEvidence]:
    """The evidence on each control: its own measurements, and the candidate's where it has none.

    A control that a threshold must refuse has the candidate's parity: its own would refuse every wrong answer.
    """
    chosen = some_rows(len(truth))
    candidate = replace(evidence, champion=NO_CHAMPION, differences={}, slices=(), figures=(), untested=())
    some = among(simple, chosen)
    for control in controls:
        measurements = dict(control["evidence"])
        if control["name"] in answers:
            values = figures(schema, truth[chosen], answers[control["name"]])
            defined = values.keys() - undefined(schema, truth[chosen])
            measurements["measured"] = {**evidence.measured, **{name: Estimate(values[name]) for name in defined}}
            bad_answers = answers[control["name"]], some, level, ROUNDS_OF_CONTROLS
            measurements["yardsticks"] = compare(schema, truth[chosen], *bad_answers)
        bad = None if control["inapplicable"] else replace(candidate, **measurements)
        yield ControlEvidence(control["name"], control["what"], control["expected"], bad, control["inapplicable"])


def constant_answer(
    evidence: Evidence, schema: Schema, truth: np.ndarray, simple: Yardsticks, policy: Policy
) -> ControlEvidence:
    """The control that answers every row alike, which no comparison with yardsticks may pass."""
    if not policy.yardsticks.above_constant:
        return ControlEvidence(
            NAMES[CONSTANT], "the best constant", YARDSTICK, None, "gate.yardsticks.above_constant is false"
        )
    found = compare(schema, truth, simple.predictions[CONSTANT], simple, policy.level, ROUNDS_OF_CONTROLS)
    bad = replace(evidence, champion=NO_CHAMPION, differences={}, slices=(), figures=(), yardsticks=found)
    return ControlEvidence(NAMES[CONSTANT], "the best constant", YARDSTICK, bad)


def compare_with_itself(evidence: Evidence, differences: Mapping[str, Difference]) -> ControlEvidence:
    """The control that makes the candidate its own champion."""
    finite = {name: difference for name, difference in differences.items() if difference.is_finite}
    if not finite:
        return ControlEvidence("itself", "the candidate", NO_DIFFERENCE, None, "gate.margins names no metric")
    itself = replace(evidence, champion={**NO_CHAMPION, "state": "answers"}, differences=finite, slices=())
    return ControlEvidence("itself", "the candidate", NO_DIFFERENCE, itself)


def outcome(criterion: Mapping[str, Any]) -> tuple[str, str]:
    """A word for the outcome of a criterion, and its color."""
    if not criterion["holds"]:
        return ("for a person", "yellow") if criterion["person"] else ("refused", "red")
    return ("not judged", "yellow") if criterion["note"] and criterion["value"] is None else ("holds", "green")


def show(result: dict[str, Any], times: Mapping[str, Any]) -> None:
    """Print the verdict as a table, with the measured times that the verdict itself leaves out."""
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
    timed |= {figure.name: figure.value for figure in costs(times, 0.0, 0.0, result["level"]) if not figure.stated}
    criteria = result["criteria"]
    of_slices = [criterion for criterion in criteria if criterion["about"] == SLICE]
    of_data = [criterion for criterion in criteria if criterion["about"] == DATA]
    close = [criterion for criterion in of_data if criterion["holds"] and not criterion["note"]]
    for criterion in criteria:
        if criterion in close or (criterion in of_slices and criterion["holds"]):
            continue
        value = timed.get(criterion["name"], criterion["value"])
        shown = "" if value is None else f"{value:.4g}"
        if value is not None and criterion["limits"] and criterion["champion"] is not None:
            shown = f"{abs(value):.4g} {'worse' if value < 0 else 'better'}"
        ends = ["" if end is None else f"{end:.4g}" for end in criterion["interval"] or ()]
        # as text, since a name such as recall[LABEL] would be read as markup
        table.add_row(Text(criterion["name"]), criterion["bound"], shown, " to ".join(ends), Text(*outcome(criterion)))
    console = Console()
    console.print(table)
    for criterion in (criterion for criterion in criteria if not criterion["holds"]):
        console.print(Text(f"{outcome(criterion)[0]}: {criterion['reason']}", "red"))
    if close:
        largest = max(criterion["value"] for criterion in close)
        console.print(f"distances between columns of data: {len(close)} hold, the largest {largest:.4g}")
    judged = sum(criterion["value"] is not None for criterion in of_slices)
    count = [f"{judged:,} criteria on {len(result['slices']):,} slices: see the page of the run"] if of_slices else []
    notes = [criterion["note"] for criterion in criteria if criterion["note"] and not criterion["rows"]]
    lines = [beside(result["yardsticks"]), *result["yardsticks"]["notes"]] if result["yardsticks"] else []
    for note in (*lines, result["champion"], *count, *notes):
        console.print(Text(note))


if __name__ == "__main__":
    command.run(main)
