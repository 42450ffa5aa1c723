"""The released model answers the same test samples, so that the candidate can be held against it."""

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
from stages.evaluation import sample_sheet
from stages.schema import Schema, target_kind
from stages.tables.arrays import open_split

REMEDY = "`dvc pull champion/repository.dvc`, then `dvc repro --force --single-item challenge`"


@dataclass(frozen=True)
class Standing:
    """Where the champion stands. Only one that `answers` can be compared; `outcome` is a sentence."""

    champion: str | None
    state: Literal["none", "itself", "incompatible", "lost", "answers"]
    outcome: str


def main(
    champion: Path, described: Path, served: Path, arrays: Path, schema: Path, source: Path, challenge: Path
) -> None:
    """Ask the champion as `verify` asks the candidate; write where it stands, what it answered and what differs."""
    rows, fitted = open_split(arrays, "test").rows, Schema.load(schema)
    standing, answers = ask(champion, manifests.load(described), fitted, source, rows)
    with command.replacing(challenge) as whole:
        whole.mkdir()
        (whole / "challenge.json").write_text(json.dumps(asdict(standing), indent=1) + "\n", encoding="utf-8")
        np.savez(whole / "answers.npz", **answers)
        if answers:
            ours = dict(np.load(served / "answers.npz", allow_pickle=False))
            sample_sheet.save(draw(fitted, source, rows, answers, ours), whole / "differences.png")
    print(standing.outcome)


def ask(
    described: Path, candidate: Manifest, schema: Schema, source: Path, rows: np.ndarray
) -> tuple[Standing, dict[str, np.ndarray]]:
    """Where the champion stands, and its outputs [N, *shape] for `rows` of the table if it can answer.

    Raises:
        UserError: the champion's manifest is none.
        Late: its server was too slow to start.
    """
    made = released(described)
    if made is None:
        return Standing(None, "none", "no champion yet"), {}
    if made.id == candidate.id:
        return Standing(made.id, "itself", f"{made.id} is the champion itself"), {}
    repository = described.parent / "repository"
    if not repository.exists():
        return Standing(made.id, "lost", f"{made.id} cannot be asked, since its bytes are not here: {REMEDY}"), {}
    try:
        manifests.check(repository, made)
        theirs = schema_of(repository, Names(made.name, made.id))
        if unlike := differences(theirs, schema):
            return Standing(made.id, "incompatible", f"{made.id} answers another question: {unlike}"), {}
        with sandbox(repository, made, theirs) as box:
            largest = largest_batch(repository, box.names)
            answers = box.ask_all(raw_rows(theirs, source, rows), largest)
    except Late:
        raise  # no word on the champion, to be kept
    except UserError as error:
        return Standing(made.id, "lost", f"{made.id} cannot be asked ({error}): {REMEDY}"), {}
    outputs = {name: answers[name] for name in theirs.outputs()}
    return Standing(made.id, "answers", f"{made.id} answered {len(rows):,} test samples"), outputs


def released(path: Path) -> Manifest | None:
    """The champion's manifest; none before the first release.

    Raises:
        UserError: the file is no manifest.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: restore it with `git checkout {path}`") from error
    return manifests.load(path) if described else None


def differences(theirs: Schema, ours: Schema) -> str:
    """Why the champion cannot be asked what the candidate is asked; nothing if it can."""
    kinds = {column.name: column.kind for column in ours.features}
    for column in theirs.features:
        if kinds.get(column.name) != column.kind:
            return f"it needs the column {column.name!r}, of kind {column.kind}"
    if theirs.target.kind != ours.target.kind:
        return f"it tells {theirs.target.name!r}, of kind {theirs.target.kind.removeprefix('target_')}"
    for name, tensor in theirs.outputs().items():
        other = ours.outputs().get(name)
        if other is None or (other.dtype, other.shape, other.labels) != (tensor.dtype, tensor.shape, tensor.labels):
            return f"its {name} are of other labels" if tensor.labels else f"it answers {name!r}"
    return ""


def draw(
    schema: Schema, source: Path, rows: np.ndarray, theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]
) -> Any:
    """A sheet of the samples that both answer otherwise, those furthest apart first, from outputs [N, *shape]."""
    other = np.flatnonzero(~target_kind(schema.target.kind).agree(theirs, ours, schema.target.fitted))
    first = next(iter(schema.outputs()))
    gaps = np.abs(ours[first][other] - theirs[first][other])
    apart = gaps.max(axis=tuple(range(1, gaps.ndim)), initial=0.0)
    furthest = other[np.argsort(-apart, kind="stable")][: sample_sheet.MOST]
    both = [sample_sheet.told(schema, {name: each[furthest] for name, each in some.items()}) for some in (theirs, ours)]
    answered = [f"champion: {his}\nthis: {own}" for his, own in zip(*both, strict=True)]
    return sample_sheet.draw(schema, source, rows[furthest], answered, "no differences")


if __name__ == "__main__":
    command.run(main)
