"""Compares the served answers with those of simple models on the same test rows."""

from __future__ import annotations

import numpy as np

from stages.evaluation import metrics
from stages.evaluation.yardsticks import CONSTANT, Yardsticks
from stages.gating.evidence import Comparison, Difference
from stages.gating.metrics import figures, measure
from stages.schema import Schema
from stages.stats.bootstrap import ROUNDS

FEW_ROUNDS = 99  # are enough for a model that is bad on purpose


def compare(
    schema: Schema, truth: np.ndarray, ours: np.ndarray, simple: Yardsticks, level: float, rounds: int = ROUNDS
) -> Comparison:
    """Our predictions [N, ...] beside the simple models', by the metric for the headline."""
    metric = metrics.of(schema.target).headline(schema.target)

    def better(one: np.ndarray, other: np.ndarray) -> Difference | None:
        return measure(schema, truth, one, other, (), {metric}, level, rounds)[1].get(metric)

    values = {name: figures(schema, truth, predicted)[metric] for name, predicted in simple.predictions.items()}
    gain = better(ours, simple.predictions[CONSTANT])
    lag = better(simple.predictions[simple.best], ours)
    return Comparison(
        metric, figures(schema, truth, ours)[metric], values, simple.best, len(truth), gain, lag, simple.notes
    )


def among(simple: Yardsticks, rows: np.ndarray) -> Yardsticks:
    """The simple models' predictions for some of the test rows."""
    return Yardsticks({name: predicted[rows] for name, predicted in simple.predictions.items()}, simple.best)


def untested(schema: Schema, truth: np.ndarray) -> list[str]:
    """The classes that no test row has; nothing for a number."""
    labels = next(iter(schema.outputs().values())).labels
    found = set(np.unique(truth).tolist()) if labels else set()
    return [label for code, label in enumerate(labels) if code not in found]
