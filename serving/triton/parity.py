"""When answers are the same: equal to rounding, and the same class wherever there is a clear best one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.schema import Tensor

TOLERANCE = 1e-5  # of the tensor's scale
TIE = 1e-4  # two best answers this close may change places


def differ(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], outputs: Mapping[str, Tensor]
) -> tuple[bool, float]:
    """Whether any output [n, ...] is another, and the largest difference in its scale; infinite if it cannot be told.

    Wrong answers never raise.
    """
    worst, other = 0.0, False
    for output, tensor in outputs.items():
        if ours[output].shape != theirs[output].shape:
            return True, float("inf")
        delta = np.abs(ours[output].astype(np.float64) - theirs[output]) / tensor.scale
        worst = max(worst, float(delta.max(initial=0.0)) if np.isfinite(delta).all() else float("inf"))
        other = other or (bool(tensor.labels) and not same_best(ours[output], theirs[output]))
    return other or worst > TOLERANCE, worst


def same_best(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the best of C is the same in each row [n, C], but for ties closer than TIE."""
    two = np.sort(theirs, axis=1)[:, -2:]
    clear = two[:, -1] - two[:, 0] >= TIE
    return bool((ours.argmax(1) == theirs.argmax(1))[clear].all())
