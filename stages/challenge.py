"""Serve the champion, the released model, on the same test samples, to compare the candidate with it."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from serving.triton import manifest as manifests
from serving.triton.manifest import Manifest
from serving.triton.names import Names
from serving.triton.repository import largest_batch, schema_of
from serving.triton.sandbox import raw_rows, sandbox
from stages.core import command
from stages.core.errors import Late, UserError
from stages.core.files import replacing
from stages.evaluation import sample_sheet
from stages.schema import Schema, target_kind
from stages.tables.arrays import open_split

REMEDY = "`dvc pull champion/repository.dvc`, then `dvc repro --force --single-item challenge`"


@dataclass(frozen=True)
class ChampionState:
    """The state of the champion. Only one that `answers` can be compared. `outcome`: a sentence."""

    champion: str | None
    state: Literal["none", "itself", "incompatible", "lost", "answers"]
    outcome: str


def main(
    champion: Path, manifest: Path, answers: Path, arrays: Path, schema: Path, table: Path, challenge: Path
) -> None:
    """Serve the champion as `verify` serves the candidate; write its state, its predictions and where they differ."""
    rows, fitted = open_split(arrays, "test").rows, Schema.load(schema)
    state, predictions = ask(champion, manifests.load(manifest), fitted, table, rows)
    with replacing(challenge) as folder:
        folder.mkdir()
        (folder / "challenge.json").write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
        np.savez(folder / "answers.npz", **predictions)  # type: ignore[arg-type]  # numpy takes a name `allow_pickle` for its own
        if predictions:
            ours = dict(np.load(answers / "answers.npz", allow_pickle=False))
            sample_sheet.save(draw(fitted, table, rows, predictions, ours), folder / "differences.png")
    print(state.outcome)


def ask(
    described: Path, candidate: Manifest, schema: Schema, source: Path, rows: np.ndarray
) -> tuple[ChampionState, dict[str, np.ndarray]]:
    """The champion's state, and its outputs [N, *shape] for `rows` of the table if it can answer.

    Raises:
        UserError: the champion's manifest is invalid.
        Late: its server was too slow to start.
    """
    made = released(described)
    if made is None:
        return ChampionState(None, "none", "no champion yet"), {}
    if made.id == candidate.id:
        return ChampionState(made.id, "itself", f"{made.id} is the champion itself"), {}
    repository = described.parent / "repository"
    if not repository.exists():
        return ChampionState(made.id, "lost", f"{made.id} cannot be served, since its bytes are not here: {REMEDY}"), {}
    try:
        manifests.check(repository, made)
        theirs = schema_of(repository, Names(made.name, made.id))
        if difference := differences(theirs, schema):
            return ChampionState(made.id, "incompatible", f"{made.id} has another schema: {difference}"), {}
        with sandbox(repository, made, theirs) as box:
            largest = largest_batch(repository, box.names)
            answers = box.ask_all(raw_rows(theirs, source, rows), largest)
    except Late:
        raise  # a slow server says nothing about the champion
    except UserError as error:
        return ChampionState(made.id, "lost", f"{made.id} cannot be served ({error}): {REMEDY}"), {}
    outputs = {name: answers[name] for name in theirs.outputs()}
    return ChampionState(made.id, "answers", f"{made.id} answered {len(rows):,} test samples"), outputs


def released(path: Path) -> Manifest | None:
    """The champion's manifest; None before the first release.

    Raises:
        UserError: the file is not a manifest.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("champion-damaged", f"{path} is not JSON: restore it with `git checkout {path}`") from error
    return manifests.load(path) if described else None


def differences(theirs: Schema, ours: Schema) -> str:
    """Why the champion cannot answer the candidate's requests; empty if it can."""
    kinds = {column.name: column.kind for column in ours.features}
    for column in theirs.features:
        if kinds.get(column.name) != column.kind:
            return f"it needs the column {column.name!r}, of kind {column.kind}"
    if theirs.target.kind != ours.target.kind:
        return f"it predicts {theirs.target.name!r}, of kind {theirs.target.kind.removeprefix('target_')}"
    for name, tensor in theirs.outputs().items():
        other = ours.outputs().get(name)
        if other is None or (other.dtype, other.shape, other.labels) != (tensor.dtype, tensor.shape, tensor.labels):
            return f"its {name} are of other labels" if tensor.labels else f"it has the output {name!r}"
    return ""


def draw(
    schema: Schema, source: Path, rows: np.ndarray, theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]
) -> Any:
    """A sheet of the samples with different outputs [N, *shape], those furthest apart first."""
    different = np.flatnonzero(~target_kind(schema.target.kind).agree(theirs, ours, schema.target.fitted))
    first = next(iter(schema.outputs()))
    gaps = np.abs(ours[first][different] - theirs[first][different])
    largest = gaps.max(axis=tuple(range(1, gaps.ndim)), initial=0.0)
    furthest = different[np.argsort(-largest, kind="stable")][: sample_sheet.MOST]
    champion, candidate = (
        sample_sheet.prediction_lines(schema, {name: values[furthest] for name, values in outputs.items()})
        for outputs in (theirs, ours)
    )
    lines = [f"champion: {old}\nthis: {new}" for old, new in zip(champion, candidate, strict=True)]
    return sample_sheet.draw(schema, source, rows[furthest], lines, "no differences")


if __name__ == "__main__":
    command.run(main)
