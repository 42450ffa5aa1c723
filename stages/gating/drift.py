"""How far data have moved, as figures for the verdict: new ones from the champion's, test from train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stages.gating.verdict import DATA, Figure
from stages.tables.distributions import Statistics, Summary, distance

AS_CHAMPION, AS_TRAIN = "as the champion's", "test as train"  # end the names of the criteria, after the column's


@dataclass(frozen=True)
class Bounds:
    """`gate.drift` in params.yaml: distances 0 to 1, beyond chance."""

    max_distance: float
    columns: Mapping[str, float]
    train_test: float
    min_rows: int


def figures(old: Statistics, new: Statistics, state: str, bounds: Bounds) -> list[Figure]:
    """Each distance with its bound. `old`: the champion's statistics; `state`: where it stands, by `challenge`."""
    return [*_from_champion(old, new, state, bounds), *_of_test(new, bounds)]


def _from_champion(old: Statistics, new: Statistics, state: str, bounds: Bounds) -> Iterator[Figure]:
    """The training rows against those that the champion has learnt from."""
    if state in ("none", "itself"):
        return
    if not old:
        why = "the champion was released before statistics of its data were kept, or they are lost from git"
        yield _unjudged(AS_CHAMPION, why)
        return
    gone, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    pairs = {name: (old[name]["train"], new[name]["train"]) for name in new if name in old}
    if few := _too_few(pairs, bounds.min_rows):
        yield _unjudged(AS_CHAMPION, f"the champion's data and these are not compared: {few}")
        return
    other = [name for name, pair in pairs.items() if distance(*pair) is None]
    told = (("gone", gone), ("new", added), ("of another kind", other))
    if changed := [f"{what}: {', '.join(names)}" for what, names in told if names]:
        yield _unjudged(f"columns: {AS_CHAMPION}", f"columns beside the champion's are {'; '.join(changed)}")
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
        found = distance(*pair)
        if found is None:
            continue
        bound, beyond = columns.get(name, most), max(0.0, found.value - found.chance)
        reason = (
            f"{name} is not as in {than}: {found.moved}. That is a distance of {beyond:.2f} beyond chance, where"
            f" gate.drift allows {bound:g}: mend the data, or accept more of {name} under gate.drift.columns"
        )
        yield Figure(DATA, f"{name}: {what}", beyond, bound, reason)


def _unjudged(name: str, note: str) -> Figure:
    return Figure(DATA, name, math.nan, 1.0, "", note=note)


def _too_few(pairs: Mapping[str, tuple[Summary, Summary]], least: int) -> str:
    """Why so few rows tell nothing; nothing where they do."""
    rows = min((each.rows for pair in pairs.values() for each in pair), default=least)
    return f"{rows:,} rows are fewer than gate.drift.min_rows, {least:,}" if rows < least else ""
