"""Numbers measured a little less exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.gating.perturbations import Change
from stages.schema.kinds.number import LARGEST


def noise(value: float | None, by: float, draw: np.random.Generator, fitted: Mapping[str, Any]) -> float | None:
    """Normal noise, whose standard deviation is that share of the training values' own."""
    if value is None or np.isnan(value):
        return value
    return float(np.clip(value + draw.normal(0.0, by * fitted["std"]), -LARGEST, LARGEST))


CHANGES = {"noise": Change(noise)}
