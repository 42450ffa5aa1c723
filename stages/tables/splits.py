"""The ways to split rows: each takes a property of every row [N], and returns "train", "val" or "test" for each."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np


def by_hash(hashes: np.ndarray, val: float, test: float) -> np.ndarray:
    """By 64 bits of a hash, uint64 [N]. New rows never move an old one."""
    return _cut((hashes >> np.uint64(12)) / 16**13, val, test)  # the first 52 bits, which a float holds exactly


def by_strata(ids: Iterable[int], strata: Iterable[Any], val: float, test: float) -> np.ndarray:
    """Within each stratum by the order of ids: exact shares up to one row, and at least one training sample.

    Copies of a sample stay together. New rows move those near the borders.
    """
    ids, strata = list(ids), list(strata)
    members: dict[Any, set[int]] = defaultdict(set)
    for name, stratum in zip(ids, strata, strict=True):
        members[stratum].add(name)
    ordered = {stratum: sorted(members[stratum]) for stratum in sorted(members, key=str)}
    sizes = np.array([len(names) for names in ordered.values()], np.int64)
    tests = _apportioned(sizes, test, sizes - 1)
    vals = _apportioned(sizes, val, sizes - 1 - tests)
    split: dict[tuple[Any, int], str] = {}
    for (stratum, names), n_test, n_val in zip(ordered.items(), tests, vals, strict=True):
        split |= {(stratum, name): "test" for name in names[:n_test]}
        split |= {(stratum, name): "val" for name in names[n_test : n_test + n_val]}
    return np.array([split.get((s, name), "train") for s, name in zip(strata, ids, strict=True)], "<U5")


def by_time(times: np.ndarray, val: float, test: float) -> np.ndarray:
    """The latest rows are test, those before them val. Rows of the same time stay together, so shares may deviate."""
    ascending = np.sort(times)
    first, behind = (np.searchsorted(ascending, times, side) for side in ("left", "right"))
    return _cut((len(times) - (first + behind) / 2) / max(1, len(times)), val, test)


def hashed(group: str | None) -> int:
    """64 bits of a group's SHA-256; raises ValueError for None."""
    if group is None:
        raise ValueError("missing")
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8])


def clock(cells: Iterable[str | None]) -> Callable[[str | None], float]:
    """The function that reads the time in a cell of this column: a number if most cells are, else an ISO timestamp.

    A timestamp without a zone is in UTC. The function raises ValueError for a cell of another form.
    """
    known = [cell for cell in cells if cell is not None]
    numbers = sum(_number(cell) is not None for cell in known)
    return _read_number if 2 * numbers > len(known) else _read_timestamp


def _cut(place: np.ndarray, val: float, test: float) -> np.ndarray:
    """Split by places from 0 to 1: the lowest `test` are test, the next `val` are val."""
    splits = np.full(len(place), "train", "<U5")
    splits[place < test + val] = "val"
    splits[place < test] = "test"
    return splits


def _apportioned(sizes: np.ndarray, share: float, room: np.ndarray) -> np.ndarray:
    """How many rows of each stratum [C] to take for a share of all, by largest remainders and at most `room`."""
    exact = sizes * share
    rows: np.ndarray = np.minimum(exact.astype(np.int64), room)
    for stratum in np.argsort(rows - exact, kind="stable"):
        if rows.sum() < round(float(exact.sum())) and rows[stratum] < room[stratum]:
            rows[stratum] += 1
    return rows


def _read_number(cell: str | None) -> float:
    number = None if cell is None else _number(cell)
    if number is None:
        raise ValueError("missing" if cell is None else f"{cell!r} is not a number, as other cells are")
    return number


def _read_timestamp(cell: str | None) -> float:
    """Microseconds since 1970, which a float64 holds exactly."""
    if cell is None:
        raise ValueError("missing")
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        raise ValueError(f"{cell!r} is not an ISO date or timestamp, such as 2024-12-31 or 2024-12-31T23:59") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
