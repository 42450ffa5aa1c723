"""Split the table, fit each column on the training rows, and write memory-mapped arrays."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from stages.core import command
from stages.core.errors import UserError
from stages.core.files import replacing, sha256
from stages.schema import Column, Schema, kind, target_kind
from stages.settings import params, section, sections
from stages.settings.split import Split
from stages.tables import splits, table
from stages.tables.arrays import SPLITS, create_split
from stages.tables.table import column as read_column
from stages.tables.table import ids as read_ids

THREADS = 2  # each holds one column of the training rows in memory
FEW = 3  # faulty rows that an error names

Raw = Mapping[str, Sequence[Any]]  # {column: [n]}


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    schema: sections.Schema
    split: Split


def main(table: Path, quarantine: Path, arrays: Path, schema: Path) -> None:
    """Turn the accepted rows of the table into arrays and a fitted schema."""
    parameters = params.load("prepare", Parameters)
    declared = sections.declared(parameters.schema.features, parameters.schema.target)
    ids, official = read_ids(table), read_column(table, "_split")
    sound = np.flatnonzero(~set_aside(table, quarantine) | (official == "test"))  # keep results comparable with others
    keys = read_keys(table, declared.target, parameters.split.by, parameters.split.column, sound)
    assigned = assign(
        ids[sound], official[sound], parameters.split.val, parameters.split.test, parameters.split.by, keys
    )
    assigned, copies = remove(assigned, ids[sound])
    removed = {"quarantined": len(ids) - len(sound), "copies of a later split": copies}
    if parameters.split.by == "group" and keys is not None:
        assigned, removed["of a group in a later split"] = remove(assigned, keys)
    rows = {split: sound[assigned == split] for split in SPLITS}
    check(rows)
    fitted = fit(table, declared, rows["train"])
    with replacing(schema) as whole:
        fitted.dump(whole)
    with replacing(arrays) as folder:
        write(table, fitted, rows, folder)
        write_summary(folder, rows, removed, {"table": table, "quarantine": quarantine, "schema": schema})
    counted = ", ".join(f"{len(rows[split]):,} {split}" for split in SPLITS)
    print(f"prepared {counted}; left out " + ", ".join(f"{n:,} {why}" for why, n in removed.items()))


def read_keys(source: Path, target: Column, by: str, column: str, rows: np.ndarray) -> np.ndarray | None:
    """The keys to split the rows by, [n]: strata, hashes of groups, or times; None for a split by id only.

    Raises:
        UserError: a group or time is missing, or a time cannot be read; the message names the rows.
    """
    if by == "strata":
        kind: Any = target_kind(target.kind)
        return np.asarray(kind.strata(table.column(source, target.name)[rows]))
    if by not in ("group", "time"):
        return None
    cells = table.column(source, "_split_by")[rows]
    read = splits.clock(cells) if by == "time" else splits.hashed
    keys = attempt(lambda raw: [*map(read, raw[column])], {column: cells}, source, rows, f"{by} split, column {column}")
    return np.array(keys, np.float64 if by == "time" else np.uint64)


def assign(
    ids: np.ndarray, official: np.ndarray, val: float, test: float, by: str = "hash", keys: Any = None
) -> np.ndarray:
    """The split of each row [N]: the official one, else the one that `stages/tables/splits.py` computes.

    A split that no row has officially is taken from the rows without an official split or with "train".
    """
    assigned = np.where(official.astype(bool), official, "train").astype("<U5")
    free = np.flatnonzero(assigned == "train")
    present = set(official)
    match by:
        case "strata":
            found = splits.by_strata(ids[free], keys[free], val, test)
        case "group":
            found = splits.by_hash(keys[free], val, test)
        case "time":  # where test is official, the latest of the others are val
            found = splits.by_time(keys[free], val, 0.0 if "test" in present else test)
        case _:
            found = splits.by_hash(ids[free], val, test)
    taken = ~np.isin(found, [name for name in present if name])
    assigned[free[taken]] = found[taken]
    return assigned


def remove(assigned: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, int]:
    """Remove rows whose name, the hash of an id or a group, is in a later split as well.

    Returns:
        The splits [N], with "" for removed rows; and the number of removed rows.
    """
    kept, ordered = assigned.copy(), np.sort(names)
    several = np.isin(names, np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))  # names with more than one row
    for later in (("test",), ("val", "test")):
        elsewhere = names[several & np.isin(kept, later)]
        earlier = np.flatnonzero(several & (kept == SPLITS[SPLITS.index(later[0]) - 1]))
        kept[earlier[np.isin(names[earlier], elsewhere)]] = ""
    return kept, int((kept != assigned).sum())


def set_aside(source: Path, quarantine: Path) -> np.ndarray:
    """Whether each row is quarantined, bool [N]. A copy of the sample from another source may be accepted."""
    with Path(quarantine).open(encoding="utf-8", newline="") as file:
        faulty = list(csv.DictReader(file))
    ids, sources = ([row[name] for row in faulty] for name in ("id", "source"))
    same_id, same_source = table.is_in(source, "_id", ids), table.is_in(source, "_source", sources)
    return np.asarray(same_id & same_source)  # sources are unique


def check(rows: dict[str, np.ndarray]) -> None:
    """Raise UserError if a split is empty."""
    for split, positions in rows.items():
        if not len(positions):
            raise UserError(
                "split-empty",
                f"the {split} split is empty: give more samples, or a larger share under `split:` in params.yaml",
            )


def fit(source: Path, declared: Schema, rows: np.ndarray) -> Schema:
    """The schema with the values that the kinds fit to the training rows.

    Raises:
        UserError: a kind cannot be fitted to a column.
    """

    def fitted(column: Column, module: Any) -> Column:
        try:
            values = module.fit(table.Values(source, column.name, rows), module.Options(**column.options))
        except ValueError as error:
            raise UserError("data-not-fitted", f"column {column.name!r}, train split: {error}") from error
        return replace(column, fitted=values)

    with ThreadPoolExecutor(THREADS) as pool:  # read one column while another is sorted
        features = pool.map(lambda column: fitted(column, kind(column.kind)), declared.features)
        return Schema(tuple(features), fitted(declared.target, target_kind(declared.target.kind)))


def write(source: Path, schema: Schema, rows: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write the arrays of all splits, {split: positions of its rows}, reading the table once.

    Raises:
        UserError: a kind rejects a value, such as a label that is missing or that no training row has. Such a row is
            not dropped, because the test split would then differ from the official one.
    """
    target, tensors = schema.target, [block.tensor for block in schema.blocks()]

    def code(raw: Raw) -> np.ndarray:
        if None in raw[target.name]:
            raise ValueError("missing")
        return target_kind(target.kind).transform(raw[target.name], target.fitted)

    maps, done = {}, dict.fromkeys(rows, 0)
    for split, positions in rows.items():
        values = [value for chunk in table.Values(source, target.name, positions) for value in chunk]
        coded = attempt(code, {target.name: values}, source, positions, f"{split} split, column {target.name}")
        maps[split] = create_split(folder / split, positions, coded, tensors)
    for first, piece in table.pieces(source, [column.name for column in schema.features]):
        for split, positions in rows.items():
            if not len(selected := table.select(first, piece, positions)):
                continue
            raw = {name: table.raw(selected.column(name)) for name in selected.column_names}
            place = slice(done[split], done[split] + len(selected))
            encoded = attempt(schema.transform, raw, source, positions[place], f"{split} split")
            for array, made in zip(maps[split], encoded.values(), strict=True):
                array[place] = made
            done[split] = place.stop
    for array in (array for arrays in maps.values() for array in arrays):
        cast(np.memmap, array).flush()


def attempt(encode: Callable[[Raw], Any], raw: Raw, source: Path, rows: np.ndarray, where: str) -> Any:
    """`encode(raw)`, where `raw` {column: [n]} are values at `rows` of the table.

    Raises:
        UserError: it raises ValueError; the message names the faulty rows by their sources.
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
        listed = "; ".join([*faults[:FEW], *more]) or str(error)
        raise UserError(
            "data-invalid-value", f"{where}: {listed}. Fix these samples, or remove them from the data"
        ) from error


def write_summary(folder: Path, rows: dict[str, np.ndarray], removed: dict[str, int], read: dict[str, Path]) -> None:
    """Write `summary.json`: counts, and the SHA-256 of every file read and written."""
    written = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*.npy"))}
    summary = {
        "rows": {split: len(positions) for split, positions in rows.items()},
        "removed": removed,
        "sha256": {name: sha256(path) for name, path in read.items()} | written,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
