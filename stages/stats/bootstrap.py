"""The bootstrap: metrics computed again on test samples drawn with replacement.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 (percentile intervals) and 16 (pairs).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 399  # with it, the ends of intervals at the usual levels are values of single rounds


def resampled(
    definitions: Any, target: Any, predictions: Tensor, truth: Tensor, names: Collection[str], rounds: int = ROUNDS
) -> Mapping[str, np.ndarray]:
    """Predictions [N, ...] and truth [N, ...] -> each named metric [rounds]. Every call makes the same draws.

    `definitions`: a module of evaluation/metrics.

    A metric that a draw does not define, such as the recall of a class without samples, is NaN or 0 in that round.
    """
    import torch
    from torchmetrics import MetricCollection

    bases = {name.partition("[")[0] for name in names}
    collection = definitions.metrics(target)
    metrics = MetricCollection({name: collection[name] for name in bases & set(collection)}, compute_groups=False)
    drawn = {name: np.full(rounds, np.nan) for name in names}
    generator = torch.Generator().manual_seed(0)
    for round_ in range(rounds if len(metrics) else 0):
        rows = torch.randint(len(truth), (len(truth),), generator=generator)
        metrics.reset()
        metrics.update(predictions[rows], truth[rows])
        values = definitions.scalars(metrics.compute(), target)
        for name, figures in drawn.items():
            figures[round_] = values.get(name, np.nan)
    return drawn
