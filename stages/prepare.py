"""Split the table, fit each column on the training rows, and write memory-mapped arrays."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from stages import command, params, table
from stages.arrays import SPLITS, create_split
from stages.errors import UserError
from stages.schema import Column, Schema, kind, target_kind


def main(source: Path, quarantine: Path, arrays: Path, schema: Path) -> None:
    """Turn the accepted rows of the table into arrays and a fitted schema."""
    said = params.load("prepare")
    declared = params.declared(said.schema.features, said.schema.target)
    ids, official = table.column(source, "_id"), table.column(source, "_split")
    splits = assign(ids, official, said.split.val, said.split.test)
    splits, removed = remove(ids, splits, official, read_quarantine(quarantine))
    rows = {split: np.flatnonzero(splits == split) for split in SPLITS}
    check(rows)
    fitted = fit(source, declared, rows["train"])
    with command.replacing(schema) as whole:
        fitted.dump(whole)
    with command.replacing(arrays) as folder:
        for split in SPLITS:
            write(source, fitted, rows[split], folder / split, split)
        summarise(folder, rows, removed, {"table": source, "quarantine": quarantine, "schema": schema})
    counted = ", ".join(f"{len(rows[split]):,} {split}" for split in SPLITS)
    print(f"prepared {counted}; left out " + ", ".join(f"{n:,} {why}" for why, n in removed.items()))


def assign(ids: np.ndarray, official: np.ndarray, val: float, test: float) -> np.ndarray:
    """A split for each row [N]: the official one, else by the id's hash, so that a growing set never moves a sample.

    A split that is nowhere official is taken out of the rows that are not of another one.
    """
    share = np.array([int(name[:13], 16) / 16**13 for name in ids])
    splits = np.array([name or "train" for name in official], dtype=object)
    free = splits == "train"
    present = set(official)
    if "test" not in present:
        splits[free & (share < test)] = "test"
    if "val" not in present:
        splits[free & (share >= test) & (share < test + val)] = "val"
    return splits


def remove(
    ids: np.ndarray, splits: np.ndarray, official: np.ndarray, quarantined: set[str]
) -> tuple[np.ndarray, dict[str, int]]:
    """Splits with "" where a row is left out, and how many for which reason.

    Official test rows stay, so that figures compare with others'; a sample of two splits stays in the later one only.
    """
    kept = splits.copy()
    bad = np.array([name in quarantined for name in ids], bool) & (official != "test")
    kept[bad] = ""
    copies = 0
    for later in (("test",), ("val", "test")):
        elsewhere = set(ids[np.isin(kept, later)])
        earlier = SPLITS[SPLITS.index(later[0]) - 1]
        twice = (kept == earlier) & np.array([name in elsewhere for name in ids], bool)
        kept[twice] = ""
        copies += int(twice.sum())
    return kept, {"quarantined": int(bad.sum()), "copies of a later split": copies}


def read_quarantine(path: Path) -> set[str]:
    """The ids that validation has set aside."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return {row["id"] for row in csv.DictReader(file)}


def check(rows: dict[str, np.ndarray]) -> None:
    """Raise UserError where a split is empty."""
    for split, positions in rows.items():
        if not len(positions):
            raise UserError(
                f"the {split} split is empty: give more samples, or a larger share under `split:` in params.yaml"
            )


def fit(source: Path, declared: Schema, rows: np.ndarray) -> Schema:
    """The schema with all that the kinds learn from the training rows."""
    features = []
    for column in declared.features:
        module = kind(column.kind)
        features.append(_fitted(column, module.fit(table.Values(source, column.name, rows), _options(module, column))))
    module = target_kind(declared.target.kind)
    values = table.Values(source, declared.target.name, rows)
    return Schema(tuple(features), _fitted(declared.target, module.fit(values, _options(module, declared.target))))


def write(source: Path, schema: Schema, rows: np.ndarray, folder: Path, split: str) -> None:
    """One split's arrays.

    Raises:
        UserError: a label of this split that the training rows do not have.
    """
    target = schema.target
    labels = [value for chunk in table.Values(source, target.name, rows) for value in chunk]
    try:
        coded = target_kind(target.kind).transform(labels, target.fitted)
    except ValueError as error:
        raise UserError(f"column {target.name!r}, {split} split: {error}") from error
    blocks = schema.blocks()
    maps = create_split(folder, rows, coded, [block.tensor for block in blocks])
    columns = [table.Values(source, column.name, rows) for column in schema.features]
    first = 0
    for chunks in zip(*columns, strict=True):
        encoded = schema.encode({column.name: chunk for column, chunk in zip(schema.features, chunks, strict=True)})
        for block, array in zip(blocks, maps, strict=True):
            array[first : first + len(chunks[0])] = encoded[block.name]
        first += len(chunks[0])
    for array in maps:
        array.flush()


def summarise(folder: Path, rows: dict[str, np.ndarray], removed: dict[str, int], read: dict[str, Path]) -> None:
    """Write `summary.json`: counts, and the SHA-256 of every file read and written."""
    written = {path.relative_to(folder).as_posix(): table.sha256(path) for path in sorted(folder.rglob("*.npy"))}
    summary = {
        "rows": {split: len(positions) for split, positions in rows.items()},
        "removed": removed,
        "sha256": {name: table.sha256(path) for name, path in read.items()} | written,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _options(module: Any, column: Column) -> Any:
    return module.Options(**column.options)


def _fitted(column: Column, fitted: dict[str, Any]) -> Column:
    return Column(column.name, column.kind, column.options, fitted)


if __name__ == "__main__":
    command.run(main)
