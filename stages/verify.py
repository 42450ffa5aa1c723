"""Serve the exported bytes with a real Triton and compare its answers to the test split with the checkpoint's."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serving.triton import manifest as manifests
from serving.triton import parity
from serving.triton.sandbox import Raw, Sandbox, joined, raw_rows, sandbox, size
from stages.core import command
from stages.core.files import replacing
from stages.gating import controls, perturbations
from stages.gating.controls import Control
from stages.gating.evidence import PARITY
from stages.gating.perturbations import PlannedPerturbation
from stages.schema import IDENTIFIERS, Schema
from stages.settings import params, section, sections
from stages.settings.gate import Gate
from stages.tables.arrays import open_split

ODD_BATCH = 7
PARITY_ROWS = 256  # for small batches; the largest batch covers the whole test split
CLIENTS = 8
COUNTED_S = 5


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    export: sections.Export
    gate: Gate


def main(
    repository: Path, manifest: Path, expected: Path, arrays: Path, schema: Path, table: Path, answers: Path
) -> None:
    """Send requests in every way, compare with the checkpoint's predictions, and write the served answers."""
    parameters = params.load("verify", Parameters)
    largest = parameters.export.max_batch
    fitted, made = Schema.load(schema), manifests.load(manifest)
    rows = open_split(arrays, "test").rows
    reference = dict(np.load(expected, allow_pickle=False))
    bad, chosen = controls.wrong(fitted, reference, min(largest, len(rows))), controls.some_rows(len(rows))
    degrees = {
        key: {name: change.by for name, change in changes.items()}
        for key, changes in parameters.gate.robustness.items()
    }
    planned = perturbations.chosen(fitted, degrees)
    with sandbox(repository, made, fitted, partial(controls.add, bad)) as box:
        served = box.ask_all(raw_rows(fitted, table, rows), largest)
        some = next(raw_rows(fitted, table, rows[:PARITY_ROWS], whole=True))
        checks = [compare(f"batches of {largest}", served, reference, fitted)]
        checks += [
            compare(f"batches of {few}", box.ask_all([some], few), reference, fitted)
            for few in sorted({1, min(ODD_BATCH, largest)})
        ]
        together = ask_together(box, some, largest)
        checks.append(compare(f"{CLIENTS} clients at once", together, reference, fitted) | {"max_delta": None})
        by_id = box.ask_all([some], largest, box.names.candidate)
        checks.append(compare(f"as {box.names.candidate}", by_id, reference, fitted))
        sent = len(rows) + size(some) * (len(checks) - 1)
        checks.append(counted(box, sent))
        spread = next(raw_rows(fitted, table, rows[chosen], whole=True))
        wrong = ask_controls(box, bad, spread, largest)
        changed = [box.ask_all([change.apply(spread, rows[chosen])], largest) for change in planned]
    checks += [released(served, made.id), distinct_ids([served, together, by_id])]
    right = {output: reference[output][chosen] for output in fitted.outputs()}
    records = [record(control, wrong.get(control.name), right, fitted) for control in bad]
    with replacing(answers) as folder:
        write(folder, served, {"release": made.id, "samples": len(rows), "checks": checks})
        write_controls(folder, wrong, records, fitted)
        write_changed(folder, planned, changed, fitted)
    failed = [check["name"] for check in checks if not check["holds"]]
    print(
        f"Triton answered {len(rows):,} test samples as {made.id}; "
        + (f"FAILED checks: {failed}" if failed else "all checks hold")
    )


def ask_together(box: Sandbox, raw: Raw, largest: int) -> dict[str, np.ndarray]:
    """Send batches of different sizes from several clients at once, which the server may mix; answers in order."""
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
    """Check that served outputs [n, ...] equal the first n of the reference's, up to rounding."""
    outputs = schema.outputs()
    first = {output: reference[output][: len(served[output])] for output in outputs}
    different, worst = parity.differ(served, first, outputs)
    return {"name": name, "holds": not different, "max_delta": float(f"{worst:.1e}") if np.isfinite(worst) else None}


def counted(box: Sandbox, sent: int) -> dict[str, Any]:
    """Check that the server computed as many samples as were sent. It counts a request after it has answered."""
    deadline = time.monotonic() + COUNTED_S
    while (count := box.count(box.names.network)) < sent and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"name": f"Triton counted {sent} samples", "holds": count == sent, "max_delta": None}


def released(served: Mapping[str, np.ndarray], release: str) -> dict[str, Any]:
    """Check that every answer has the release's id."""
    return {
        "name": "every answer carries the release",
        "holds": bool((served["release"] == release).all()),
        "max_delta": None,
    }


def distinct_ids(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Check that no two answers have the same `answer_id`."""
    ids = np.concatenate([answers["answer_id"] for answers in parts])
    return {"name": "every answer has an id of its own", "holds": len(set(ids)) == len(ids), "max_delta": None}


def ask_controls(box: Sandbox, bad: Sequence[Control], raw: Raw, largest: int) -> dict[str, dict[str, np.ndarray]]:
    """The answers of each control that could be made, by its name."""
    served = [control for control in bad if not control.inapplicable]
    return {control.name: box.ask_all([raw], largest, box.names.added(control.name)) for control in served}


def record(
    control: Control, served: Mapping[str, np.ndarray] | None, right: Mapping[str, np.ndarray], schema: Schema
) -> dict[str, Any]:
    """A control as JSON, with the check of its answers if parity should refuse it."""
    evidence = {}
    if served is not None and control.expected == PARITY:
        evidence = {"checks": [compare(control.name, served, right, schema)]}
    return control.described() | {"evidence": evidence}


def write(folder: Path, served: Mapping[str, np.ndarray], report: dict[str, Any]) -> None:
    """Write `answers.npz`, the outputs in the order of the test split, and `parity.json`, the checks."""
    folder.mkdir()
    np.savez(folder / "answers.npz", **{name: array for name, array in served.items() if name not in IDENTIFIERS})  # type: ignore[arg-type]  # numpy takes a name `allow_pickle` for its own
    (folder / "parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_controls(
    folder: Path, served: Mapping[str, Mapping[str, np.ndarray]], records: Sequence[dict[str, Any]], schema: Schema
) -> None:
    """Write `controls.npz`, each control's first output for `controls.some_rows`, and `controls.json`, what it is."""
    first = next(iter(schema.outputs()))
    np.savez(folder / "controls.npz", **{name: answers[first] for name, answers in served.items()})  # type: ignore[arg-type]  # numpy takes a name `allow_pickle` for its own
    (folder / "controls.json").write_text(json.dumps({"controls": records}, indent=1) + "\n", encoding="utf-8")


def write_changed(
    folder: Path, planned: Sequence[PlannedPerturbation], served: Sequence[Mapping[str, np.ndarray]], schema: Schema
) -> None:
    """Write `changed.npz`, outputs [changes, n, *shape] for changed rows of `some_rows`, and `changed.json`."""
    outputs = {name: np.array([answers[name] for answers in served]) for name in schema.outputs()}
    np.savez(folder / "changed.npz", **(outputs if planned else {}))  # type: ignore[arg-type]  # numpy takes a name `allow_pickle` for its own
    described = [{"key": change.key, "name": change.name, "what": str(change)} for change in planned]
    (folder / "changed.json").write_text(json.dumps({"changes": described}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
