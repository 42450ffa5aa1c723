"""A split as memory-mapped arrays: a file for each block in order, the target, and the rows' positions in the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """`blocks` [N, *shape] in the order of `Schema.blocks()`; `target` [N, ...]; `rows` int64 [N] ascending."""

    blocks: tuple[np.ndarray, ...]
    target: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def open_split(folder: Path, split: str) -> Split:
    """Map `folder/split` into memory, read-only."""
    here = Path(folder) / split
    blocks = tuple(np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(here.glob("[0-9][0-9].npy")))
    return Split(
        blocks, np.load(here / "target.npy", allow_pickle=False), np.load(here / "rows.npy", allow_pickle=False)
    )


def create_split(folder: Path, rows: np.ndarray, target: np.ndarray, tensors: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """Write target and rows, and return one writable memory map [N, *shape] for each of the blocks' `tensors`."""
    folder.mkdir(parents=True)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "target.npy", target)
    return tuple(
        np.lib.format.open_memmap(folder / f"{i:02d}.npy", "w+", tensor.dtype, (len(rows), *tensor.shape))
        for i, tensor in enumerate(tensors)
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary that `prepare` wrote: rows of each split, rows removed, and the SHA-256 of files read and written."""
    return dict(json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8")))
