"""A real Triton answers the whole test split over the wire, with exactly the exported bytes."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serving.triton import manifest, parity
from serving.triton.sandbox import Raw, Sandbox, joined, raw_rows, sandbox, size
from stages.core import command
from stages.gating import controls, perturbations
from stages.gating.controls import Control
from stages.gating.perturbations import Changed
from stages.gating.verdict import PARITY
from stages.schema import IDENTIFIERS, Schema
from stages.settings import params
from stages.tables.arrays import open_split

ODD_BATCH = 7
PARITY_ROWS = 256  # for the small batches; the largest batch and the answers cover the whole test split
CLIENTS = 8
COUNTED_S = 5


def main(
    repository: Path, described: Path, expected: Path, arrays: Path, schema: Path, source: Path, answers: Path
) -> None:
    """Ask in every manner, compare with the checkpoint's answers, and write what was served."""
    listed = params.load("verify")
    largest = listed.export.max_batch
    fitted, made = Schema.load(schema), manifest.load(described)
    rows = open_split(arrays, "test").rows
    reference = dict(np.load(expected, allow_pickle=False))
    bad, chosen = controls.wrong(fitted, reference, min(largest, len(rows))), controls.some_rows(len(rows))
    amounts = {key: {name: each.by for name, each in some.items()} for key, some in listed.gate.robustness.items()}
    robust = perturbations.chosen(fitted, amounts)
    with sandbox(repository, made, fitted, partial(controls.add, bad)) as box:
        served = box.ask_all(raw_rows(fitted, source, rows), largest)
        some = next(raw_rows(fitted, source, rows[:PARITY_ROWS], whole=True))
        checks = [compare(f"batches of {largest}", served, reference, fitted)]
        for few in sorted({1, min(ODD_BATCH, largest)}):
            checks.append(compare(f"batches of {few}", box.ask_all([some], few), reference, fitted))
        together = ask_together(box, some, largest)
        checks.append(compare(f"{CLIENTS} clients at once", together, reference, fitted) | {"max_delta": None})
        by_id = box.ask_all([some], largest, box.names.candidate)
        checks.append(compare(f"as {box.names.candidate}", by_id, reference, fitted))
        sent = len(rows) + size(some) * (len(checks) - 1)
        checks.append(counted(box, sent))
        spread = next(raw_rows(fitted, source, rows[chosen], whole=True))
        wrong = ask_controls(box, bad, spread, largest)
        changed = [box.ask_all([change.apply(spread, rows[chosen])], largest) for change in robust]
    checks += [released(served, made.id), told_apart([served, together, by_id])]
    right = {output: reference[output][chosen] for output in fitted.outputs()}
    tried = [record(each, wrong.get(each.name), right, fitted) for each in bad]
    with command.replacing(answers) as whole:
        write(whole, served, {"release": made.id, "samples": len(rows), "checks": checks})
        write_controls(whole, wrong, tried, fitted)
        write_changed(whole, robust, changed, fitted)
    failed = [check["name"] for check in checks if not check["holds"]]
    print(
        f"Triton answered {len(rows):,} test samples as {made.id}; "
        + (f"NOT as it should: {failed}" if failed else "all checks hold")
    )


def ask_together(box: Sandbox, raw: Raw, largest: int) -> dict[str, np.ndarray]:
    """Batches of growing size from several clients at once, which the server is free to mix; answers in order."""
    pieces, first, rows = [], 0, 1
    while first < size(raw):
        pieces.append({name: values[first : first + rows] for name, values in raw.items()})
        first, rows = first + rows, rows % min(ODD_BATCH, largest) + 1

    def ask(batch: Raw) -> dict[str, np.ndarray]:
        with box.client() as client:
            return box.ask(client, batch)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return joined(list(pool.map(ask, pieces)))


def compare(
    name: str, served: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], schema: Schema
) -> dict[str, Any]:
    """Whether served outputs [n, ...] are the first n of the reference's, to rounding."""
    outputs = schema.outputs()
    first = {output: reference[output][: len(served[output])] for output in outputs}
    other, worst = parity.differ(served, first, outputs)
    return {"name": name, "holds": not other, "max_delta": float(f"{worst:.1e}") if np.isfinite(worst) else None}


def counted(box: Sandbox, sent: int) -> dict[str, Any]:
    """Whether the server computed exactly as many samples as were sent. It counts a request after it has answered."""
    deadline = time.monotonic() + COUNTED_S
    while (found := box.count(box.names.network)) < sent and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"name": f"Triton counted {sent} samples", "holds": found == sent, "max_delta": None}


def released(served: Mapping[str, np.ndarray], release: str) -> dict[str, Any]:
    """Whether every answer carries the release's id."""
    return {
        "name": "every answer carries the release",
        "holds": bool((served["release"] == release).all()),
        "max_delta": None,
    }


def told_apart(several: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Whether no two of all answers have one `answer_id`."""
    ids = np.concatenate([answers["answer_id"] for answers in several])
    return {"name": "every answer has an id of its own", "holds": len(set(ids)) == len(ids), "max_delta": None}


def ask_controls(box: Sandbox, bad: Sequence[Control], raw: Raw, largest: int) -> dict[str, dict[str, np.ndarray]]:
    """What each of the controls that there can be answers, by its name."""
    some = [control for control in bad if not control.inapplicable]
    return {control.name: box.ask_all([raw], largest, box.names.added(control.name)) for control in some}


def record(
    control: Control, served: Mapping[str, np.ndarray] | None, right: Mapping[str, np.ndarray], schema: Schema
) -> dict[str, Any]:
    """What a control is, and the check of its answers where that is to refuse it."""
    own = served is not None and control.expected == PARITY
    evidence = {"checks": [compare(control.name, served, right, schema)]} if own else {}
    return control.described() | {"evidence": evidence}


def write(folder: Path, served: Mapping[str, np.ndarray], report: dict[str, Any]) -> None:
    """`answers.npz`: the outputs in the order of the test split; `parity.json`: how they compare."""
    folder.mkdir()
    np.savez(folder / "answers.npz", **{name: array for name, array in served.items() if name not in IDENTIFIERS})
    (folder / "parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_controls(
    folder: Path, served: Mapping[str, Mapping[str, np.ndarray]], tried: Sequence[dict[str, Any]], schema: Schema
) -> None:
    """`controls.npz`: each one's first output for `controls.some_rows`, by name; `controls.json`: what each is."""
    first = next(iter(schema.outputs()))
    np.savez(folder / "controls.npz", **{name: answers[first] for name, answers in served.items()})
    (folder / "controls.json").write_text(json.dumps({"controls": tried}, indent=1) + "\n", encoding="utf-8")


def write_changed(
    folder: Path, robust: Sequence[Changed], served: Sequence[Mapping[str, np.ndarray]], schema: Schema
) -> None:
    """`changed.npz`: each output [changes, n, *shape] for `controls.some_rows`, changed; `changed.json`: how."""
    outputs = {name: np.array([answers[name] for answers in served]) for name in schema.outputs()}
    np.savez(folder / "changed.npz", **(outputs if robust else {}))
    described = [{"key": each.key, "name": each.name, "what": str(each)} for each in robust]
    (folder / "changed.json").write_text(json.dumps({"changes": described}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
