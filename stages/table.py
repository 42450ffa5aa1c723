"""Reading the table in pieces: what is held at once is one row group of the columns asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet


def column(path: Path, name: str) -> np.ndarray:
    """One whole column [N]; for the small ones."""
    return parquet.read_table(path, columns=[name]).column(name).to_numpy(zero_copy_only=False)


class Values:
    """The values of one column at ascending row `positions`, in chunks [n]; iterable any number of times."""

    def __init__(self, path: Path, name: str, positions: np.ndarray) -> None:
        self.path, self.name, self.positions = path, name, positions

    def __iter__(self) -> Iterator[list[Any]]:
        with parquet.ParquetFile(self.path) as table:
            first = 0
            for group in range(table.num_row_groups):
                last = first + table.metadata.row_group(group).num_rows
                chosen = self.positions[np.searchsorted(self.positions, first) : np.searchsorted(self.positions, last)]
                if len(chosen):
                    cells = table.read_row_group(group, columns=[self.name]).column(0)
                    yield cells.take(chosen - first).to_pylist()
                first = last


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
