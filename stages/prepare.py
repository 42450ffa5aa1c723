"""Split the table, fit each column on the training rows, and write memory-mapped arrays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stages import command, params, settings, splits, table
from stages.arrays import SPLITS, create_split
from stages.errors import UserError
from stages.schema import Column, Schema, kind, target_kind

FEW = 3  # faulty rows that an error names

Raw = Mapping[str, Sequence[Any]]  # {column: [n]}


def main(source: Path, quarantine: Path, arrays: Path, schema: Path) -> None:
    """Turn the accepted rows of the table into arrays and a fitted schema."""
    said = params.load("prepare")
    declared = settings.declared(said.schema.features, said.schema.target)
    ids, official, sources = (table.column(source, name) for name in ("_id", "_split", "_source"))
    sound = accepted(ids, sources, official, read_quarantine(quarantine))
    keys = read_keys(source, declared.target, said.split.by, said.split.column, sound)
    assigned = assign(ids[sound], official[sound], said.split.val, said.split.test, said.split.by, keys)
    assigned, copies = remove(assigned, ids[sound])
    removed = {"quarantined": len(ids) - len(sound), "copies of a later split": copies}
    if said.split.by == "group":
        assigned, removed["of a group in a later split"] = remove(assigned, keys)
    rows = {split: sound[assigned == split] for split in SPLITS}
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


def accepted(
    ids: np.ndarray, sources: np.ndarray, official: np.ndarray, quarantined: Collection[tuple[str, str]]
) -> np.ndarray:
    """Positions of the rows that validation has not set aside, and of official test rows.

    Those stay in any case, so that figures compare with others'.
    """
    aside = np.array([row in quarantined for row in zip(ids, sources, strict=True)], bool)
    return np.flatnonzero(~aside | (official == "test"))


def read_keys(source: Path, target: Column, by: str, column: str, rows: np.ndarray) -> np.ndarray | None:
    """What the rows are split by beside their ids, [n]: strata, groups or times.

    Raises:
        UserError: a group or time is missing, or a time cannot be read; the rows are named.
    """
    if by == "strata":
        return np.asarray(target_kind(target.kind).strata(table.column(source, target.name)[rows]))
    if by not in ("group", "time"):
        return None
    cells = table.column(source, "_split_by")[rows]
    read = splits.clock(cells) if by == "time" else splits.present
    keys = attempt(lambda raw: [*map(read, raw[column])], {column: cells}, source, rows, by)
    return np.array(keys, np.float64 if by == "time" else object)


def assign(
    ids: np.ndarray, official: np.ndarray, val: float, test: float, by: str = "hash", keys: Any = None
) -> np.ndarray:
    """A split for each row [N]: the official one, else what `stages/splits.py` says of its id or key.

    A split that is nowhere official is taken out of the rows that are not of another one.
    """
    assigned = np.array([name or "train" for name in official], dtype=object)
    free = np.flatnonzero(assigned == "train")
    present = set(official)
    match by:
        case "strata":
            found = splits.by_strata(ids[free], keys[free], val, test)
        case "group":
            found = splits.by_group(keys[free], val, test)
        case "time":  # where test is official, the latest of the others are val
            found = splits.by_time(keys[free], val, 0.0 if "test" in present else test)
        case _:
            found = splits.by_hash(ids[free], val, test)
    taken = ~np.isin(found, [name for name in present if name])
    assigned[free[taken]] = found[taken]
    return assigned


def remove(assigned: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, int]:
    """Splits with "" for rows whose name, an id or a group, is in a later split too; and how many rows that are."""
    kept = assigned.copy()
    for later in (("test",), ("val", "test")):
        elsewhere = set(names[np.isin(kept, later)])
        earlier = SPLITS[SPLITS.index(later[0]) - 1]
        kept[(kept == earlier) & np.array([name in elsewhere for name in names], bool)] = ""
    return kept, int((kept != assigned).sum())


def read_quarantine(path: Path) -> set[tuple[str, str]]:
    """Id and source of each row that validation has set aside; another copy of the same sample may be sound."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return {(row["id"], row["source"]) for row in csv.DictReader(file)}


def check(rows: dict[str, np.ndarray]) -> None:
    """Raise UserError where a split is empty."""
    for split, positions in rows.items():
        if not len(positions):
            raise UserError(
                f"the {split} split is empty: give more samples, or a larger share under `split:` in params.yaml"
            )


def fit(source: Path, declared: Schema, rows: np.ndarray) -> Schema:
    """The schema with all that the kinds learn from the training rows.

    Raises:
        UserError: a kind cannot learn from a column.
    """

    def fitted(column: Column, module: Any) -> Column:
        try:
            learnt = module.fit(table.Values(source, column.name, rows), module.Options(**column.options))
        except ValueError as error:
            raise UserError(f"column {column.name!r}, train split: {error}") from error
        return replace(column, fitted=learnt)

    features = tuple(fitted(column, kind(column.kind)) for column in declared.features)
    return Schema(features, fitted(declared.target, target_kind(declared.target.kind)))


def write(source: Path, schema: Schema, rows: np.ndarray, folder: Path, split: str) -> None:
    """One split's arrays.

    Raises:
        UserError: a label that is missing or that the training rows do not have, or any other value that its kind
            cannot take. To drop such a row in silence would make the test split another than the official one.
    """
    target, blocks = schema.target, schema.blocks()

    def code(raw: Raw) -> np.ndarray:
        if None in raw[target.name]:
            raise ValueError("missing")
        return target_kind(target.kind).transform(raw[target.name], target.fitted)

    values = [value for chunk in table.Values(source, target.name, rows) for value in chunk]
    coded = attempt(code, {target.name: values}, source, rows, split)
    maps = create_split(folder, rows, coded, [block.tensor for block in blocks])
    columns = {column.name: table.Values(source, column.name, rows) for column in schema.features}
    first = 0
    for chunks in zip(*columns.values(), strict=True):
        last = first + len(chunks[0])
        encoded = attempt(schema.encode, dict(zip(columns, chunks, strict=True)), source, rows[first:last], split)
        for block, array in zip(blocks, maps, strict=True):
            array[first:last] = encoded[block.name]
        first = last
    for array in maps:
        array.flush()


def attempt(encode: Callable[[Raw], Any], raw: Raw, source: Path, rows: np.ndarray, split: str) -> Any:
    """`encode(raw)`, where `raw` {column: [n]} stands at `rows` of the table.

    Raises:
        UserError: it raises ValueError; the rows at fault are named by their sources.
    """
    try:
        return encode(raw)
    except ValueError as error:
        faults = []
        sources = table.column(source, "_source")[rows]
        for place, *values in zip(sources, *raw.values(), strict=True):
            try:
                encode({name: [value] for name, value in zip(raw, values, strict=True)})
            except ValueError as fault:
                faults.append(f"{place}: {fault}")
        more = [f"{len(faults) - FEW:,} more"] if len(faults) > FEW else []
        told = "; ".join([*faults[:FEW], *more]) or str(error)
        where = f"{split} split, column {', '.join(raw)}"
        raise UserError(f"{where}: {told}. Mend these samples, or take them out of the data") from error


def summarise(folder: Path, rows: dict[str, np.ndarray], removed: dict[str, int], read: dict[str, Path]) -> None:
    """Write `summary.json`: counts, and the SHA-256 of every file read and written."""
    written = {path.relative_to(folder).as_posix(): table.sha256(path) for path in sorted(folder.rglob("*.npy"))}
    summary = {
        "rows": {split: len(positions) for split, positions in rows.items()},
        "removed": removed,
        "sha256": {name: table.sha256(path) for name, path in read.items()} | written,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
