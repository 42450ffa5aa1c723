"""Fits the yardsticks to the training rows. Their settings, and the best of them, are chosen on the val split.

The work is bounded by sizes, never by the clock, and done by one thread, so that equal arrays give equal predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stages import trees
from stages.evaluation.yardsticks import CONSTANT, LINEAR, TREES, Yardsticks, targets
from stages.evaluation.yardsticks.features import Features, size
from stages.schema import Schema, kind
from stages.tables.arrays import open_split

MOST_ROWS, MOST_VAL = 50_000, 10_000  # rows to learn from, and to choose by
MOST_CELLS = 20_000_000  # numbers to learn from
PATIENCE = 2  # settings in a row without a lower loss that end the search

# Features [N, C] -> predictions [N, ...] after more and more steps of training.
Model = Callable[[Any], Iterable[np.ndarray]]


def fit(schema: Schema, arrays: Path) -> Yardsticks:
    """The constant answer, a linear model and boosted trees."""
    from threadpoolctl import threadpool_limits

    train, val, test = (open_split(arrays, name) for name in ("train", "val", "test"))
    target, models = schema.target, targets.of(schema.target)
    packed = [kind(block.columns[0].kind).PACKED for block in schema.blocks()]
    rows, judged = some(len(train), min(MOST_ROWS, MOST_CELLS // size(train.blocks))), some(len(val), MOST_VAL)
    y, y_val = train.target[rows], val.target[judged]
    constant = models.constant(train.target, target)
    predictions = {CONSTANT: np.repeat(constant, len(test), axis=0)}
    losses = {CONSTANT: models.loss(np.repeat(constant, len(judged), axis=0), y_val)}
    few = f"the simple models learned from {len(rows):,} of {len(train):,} training rows"
    notes, boosted = [few] if len(rows) < len(train) else [], trees.of(target)
    with threadpool_limits(1):
        learned, features = [np.asarray(block[rows]) for block in train.blocks], Features(packed)
        features.fit(learned, models.scores, y)
        held = [np.asarray(block[judged]) for block in val.blocks]
        for name, columns, fitted in (
            (LINEAR, features.linear, models.linear(features.linear(learned), y, target)),
            (TREES, features.trees, boosted.models(features.trees(learned), y, features.categories, target)),
        ):
            found = choose(fitted, columns(held), y_val, models.loss)
            if found:
                losses[name], model, step = found
                predictions[name] = next(islice(model(columns(test.blocks)), step, None))
    notes += features.notes if TREES in predictions else ["so many classes would take boosted trees too long"]
    return Yardsticks(predictions, min(losses, key=lambda name: losses[name]), notes)


def some(rows: int, most: int) -> np.ndarray:
    """The positions of at most `most` rows, int64 [n], ascending; always the same ones."""
    chosen: np.ndarray = np.arange(rows)
    return chosen if rows <= most else np.sort(np.random.default_rng(0).choice(chosen, most, replace=False))


def choose(
    models: Iterable[Model], x: Any, y: np.ndarray, loss: Callable[[np.ndarray, np.ndarray], float]
) -> tuple[float, Model, int] | None:
    """The lowest loss on x [N, C] with truth y [N, ...], the model that has it, and after which step."""
    best, behind = None, 0
    for model in models:
        values = [loss(predicted, y) for predicted in model(x)]
        step = int(np.argmin(values))
        if best is None or values[step] < best[0]:
            best, behind = (values[step], model, step), 0
        else:
            behind += 1
        if behind == PATIENCE:
            break
    return best
