"""Compare predictions: equal up to rounding, and with the same best class wherever one is clearly best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.schema import Tensor

TOLERANCE = 1e-5  # relative to the tensor's scale
TIE = 1e-4  # the two best classes may change places where they are closer than this


def differ(
    actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], outputs: Mapping[str, Tensor]
) -> tuple[bool, float]:
    """Compare all outputs [n, ...].

    Returns:
        Whether any output differs, and the largest difference relative to its scale; infinite where shapes differ or
        a value is not finite. Wrong predictions never raise.
    """
    largest, differs = 0.0, False
    for output, tensor in outputs.items():
        if actual[output].shape != expected[output].shape:
            return True, float("inf")
        delta = np.abs(actual[output].astype(np.float64) - expected[output]) / tensor.scale
        largest = max(largest, float(delta.max(initial=0.0)) if np.isfinite(delta).all() else float("inf"))
        differs = differs or (bool(tensor.labels) and not same_best(actual[output], expected[output]))
    return differs or largest > TOLERANCE, largest


def same_best(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the best of C classes is the same in each row [n, C], apart from ties closer than TIE."""
    two = np.sort(expected, axis=1)[:, -2:]
    clear = two[:, -1] - two[:, 0] >= TIE
    return bool((actual.argmax(1) == expected.argmax(1))[clear].all())
