"""Perturbations of numbers: noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.gating.perturbations import Perturbation
from stages.schema.kinds.number import LARGEST


def noise(value: float | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> float | None:
    """Add normal noise; its standard deviation is a share of that of the training values."""
    if value is None or np.isnan(value):
        return value
    return float(np.clip(value + draw.normal(0.0, by * fitted["std"]), -LARGEST, LARGEST))


CHANGES = {"noise": Perturbation(noise)}
