"""How far metrics may be off: computed again on test samples drawn with replacement, the bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 (percentile intervals) and 16 (pairs).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 399  # so that ends at the usual levels are one of the rounds' values


def resampled(
    measures: Any, target: Any, answers: Tensor, truth: Tensor, names: Collection[str], rounds: int = ROUNDS
) -> Mapping[str, np.ndarray]:
    """Answers [N, ...] and truth [N, ...] -> each named metric [rounds], of the same draws in every call.

    `measures`: a module of metrics, as of evaluation/metrics.

    A metric that some draw does not define, such as the recall of a label that it lacks, is NaN or 0 there.
    """
    import torch
    from torchmetrics import MetricCollection

    bases = {name.partition("[")[0] for name in names}
    whole = measures.metrics(target)
    metrics = MetricCollection({name: whole[name] for name in bases & set(whole)}, compute_groups=False)
    found = {name: np.full(rounds, np.nan) for name in names}
    generator = torch.Generator().manual_seed(0)
    for round_ in range(rounds if len(metrics) else 0):
        rows = torch.randint(len(truth), (len(truth),), generator=generator)
        metrics.reset()
        metrics.update(answers[rows], truth[rows])
        values = measures.scalars(metrics.compute(), target)
        for name in found:
            found[name][round_] = values.get(name, np.nan)
    return found
