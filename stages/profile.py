"""Summarize each column in each split. The summary is kept with a release, to compare later data with it."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import command
from stages.core.files import replacing
from stages.schema import Schema
from stages.tables import distributions, table
from stages.tables.arrays import SPLITS, open_split
from stages.tables.distributions import Statistics, Summary, of_numbers, of_words

MOST = 100_000  # rows of a split that are read, evenly spread: enough for shares to three thousandths


def main(table: Path, arrays: Path, schema: Path, statistics: Path) -> None:
    """Summarize the target, values and facts of the rows that became arrays."""
    rows = {split: spread(open_split(arrays, split).rows, MOST) for split in SPLITS}
    summaries = summarize(table, distributions.described(Schema.load(schema)), rows)
    with replacing(statistics) as whole:
        distributions.dump(summaries, whole)
    counts = ", ".join(f"{len(positions):,} {split}" for split, positions in rows.items())
    print(f"{len(summaries)} columns of {counts} rows")


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or `most` of them, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def summarize(source: Path, names: Sequence[str], rows: Mapping[str, np.ndarray]) -> Statistics:
    """Summaries of the table's columns `names` at the ascending `rows` of each split, reading the table once."""
    chunks: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for first, piece in table.pieces(source, names):
        for split, positions in rows.items():
            selected = table.select(first, piece, positions)
            for name in names:
                chunks[name, split] += selected.column(name).chunks
    return {name: {split: summary(chunks[name, split]) for split in rows} for name in names}


def summary(chunks: Sequence[Any]) -> Summary:
    """The summary of a column of texts or numbers, given as pyarrow's chunks."""
    import pyarrow as pa

    if any(pa.types.is_dictionary(chunk.type) for chunk in chunks):
        counted = (pair for chunk in chunks for pair in chunk.value_counts().to_pylist())
        return of_words((pair["values"], pair["counts"]) for pair in counted)
    numbers = [chunk.to_numpy(zero_copy_only=False).astype(np.float64) for chunk in chunks]
    return of_numbers(np.concatenate(numbers) if numbers else np.empty(0))


if __name__ == "__main__":
    command.run(main)
