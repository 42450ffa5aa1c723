"""Data drift, as figures for the verdict: new data against the champion's, test rows against training rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stages.gating.evidence import DATA, Figure
from stages.tables.distributions import Statistics, Summary, distance

AS_CHAMPION, AS_TRAIN = "as the champion's", "test as train"  # end the criteria's names, after that of the column


@dataclass(frozen=True)
class Bounds:
    """`gate.drift` in params.yaml: the largest distances, 0 to 1, beyond chance."""

    max_distance: float
    columns: Mapping[str, float]
    train_test: float
    min_rows: int


def figures(old: Statistics, new: Statistics, state: str, bounds: Bounds) -> list[Figure]:
    """Each distance with its bound. `old`: the champion's statistics; `state`: its state, as `challenge` reports it."""
    return [*_from_champion(old, new, state, bounds), *_of_test(new, bounds)]


def _from_champion(old: Statistics, new: Statistics, state: str, bounds: Bounds) -> Iterator[Figure]:
    """The training rows against those that the champion was trained on."""
    if state in ("none", "itself"):
        return
    if not old:
        note = "the champion was released before statistics of its data were kept, or they are lost from git"
        yield _unjudged(AS_CHAMPION, note)
        return
    gone, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    pairs = {name: (old[name]["train"], new[name]["train"]) for name in new if name in old}
    if few := _too_few(pairs, bounds.min_rows):
        yield _unjudged(AS_CHAMPION, f"these data are not compared with the champion's: {few}")
        return
    other = [name for name, pair in pairs.items() if distance(*pair) is None]
    changes = (("gone", gone), ("new", added), ("of another kind", other))
    if changed := [f"{change}: {', '.join(names)}" for change, names in changes if names]:
        yield _unjudged(f"columns: {AS_CHAMPION}", f"compared with the champion's, columns are {'; '.join(changed)}")
    yield from _figures(pairs, AS_CHAMPION, "the champion's training rows", bounds.max_distance, bounds.columns)


def _of_test(new: Statistics, bounds: Bounds) -> Iterator[Figure]:
    """The test rows against the training rows."""
    pairs = {name: (splits["train"], splits["test"]) for name, splits in new.items()}
    if few := _too_few(pairs, bounds.min_rows):
        yield _unjudged(AS_TRAIN, f"test and train are not compared: {few}")
        return
    yield from _figures(pairs, AS_TRAIN, "the training rows", bounds.train_test, bounds.columns)


def _figures(
    pairs: Mapping[str, tuple[Summary, Summary]], what: str, than: str, most: float, columns: Mapping[str, float]
) -> Iterator[Figure]:
    for name, pair in pairs.items():
        apart = distance(*pair)
        if apart is None:
            continue
        bound, beyond = columns.get(name, most), max(0.0, apart.value - apart.chance)
        reason = (
            f"{name} is not as in {than}: {apart.moved}. That is a distance of {beyond:.2f} beyond chance, where"
            f" gate.drift allows {bound:g}: fix the data, or allow a larger distance of {name} in gate.drift.columns"
        )
        yield Figure(DATA, f"{name}: {what}", beyond, bound, reason)


def _unjudged(name: str, note: str) -> Figure:
    return Figure(DATA, name, math.nan, 1.0, "", note=note)


def _too_few(pairs: Mapping[str, tuple[Summary, Summary]], least: int) -> str:
    """A note that there are too few rows to compare; empty if there are enough."""
    rows = min((summary.rows for pair in pairs.values() for summary in pair), default=least)
    return f"{rows:,} rows are fewer than gate.drift.min_rows, {least:,}" if rows < least else ""
