"""Metrics of the served answers: their intervals with few samples."""

from __future__ import annotations

import numpy as np
import pytest

from stages.gating import metrics
from stages.schema import Column, Schema


def test_the_interval_of_few_samples_is_not_too_narrow():
    """Of nine right answers the bootstrap draws nothing but right answers."""
    target = Schema((), Column("opinion", "target_class", {}, {"labels": ["no", "yes"], "counts": [9, 9]}))
    truth = np.arange(9) % 2
    measured, _ = metrics.measure(target, truth, np.eye(2, dtype=np.float32)[truth], None, {"f1_macro"}, (), 0.05)
    assert (measured["f1_macro"].value, measured["f1_macro"].high) == (1, 1)
    assert measured["f1_macro"].low == pytest.approx(1 - 1.6448536**2 / 9)
