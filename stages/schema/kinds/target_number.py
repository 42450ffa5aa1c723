"""A number to predict: a price, a temperature, a count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.schema import Tensor
from stages.schema.kinds.number import raw, raws

__all__ = [
    "RAW",
    "SPOILED",
    "Options",
    "agree",
    "fit",
    "outputs",
    "predictions",
    "raw",
    "raws",
    "spoiled",
    "strata",
    "transform",
]

RAW = "float64"
SPOILED = "answers mirrored"


@dataclass(frozen=True)
class Options:
    """Options of a number to predict in params.yaml."""

    coverage: float = 0.9  # share of the predicted intervals that should contain the truth

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage must be between 0 and 1, not {self.coverage}")


def strata(values: Iterable[float]) -> np.ndarray:
    """[N] -> the decile of each number, int64 [N]; equal numbers are in the same one."""
    known = np.asarray(list(values), np.float64)
    return np.searchsorted(np.quantile(known, np.linspace(0.1, 0.9, 9)), known, side="right").astype(np.int64)


def fit(chunks: Iterable[Sequence[float]], options: Options) -> dict[str, Any]:
    """Mean and standard deviation, to standardize the target; and the declared coverage."""
    known = np.sort(np.concatenate([np.asarray(chunk, np.float64) for chunk in chunks]))
    std = float(known.std())
    if not std > 0:
        raise ValueError(
            "every training row has the same value: there is nothing to learn: name another target, or add rows"
        )
    return {"mean": float(f"{known.mean():.9g}"), "std": float(f"{std:.9g}"), "coverage": options.coverage}


def transform(values: Sequence[float], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> float32 [N, 1]."""
    return np.asarray(values, np.float64).astype(np.float32)[:, None]


def outputs(fitted: dict[str, Any]) -> dict[str, Tensor]:
    """value: float32 (1,), and interval: float32 (2,), its ends; both in the unit of the target."""
    unit = fitted["std"]
    return {"value": Tensor("float32", (1,), scale=unit), "interval": Tensor("float32", (2,), scale=unit)}


def spoiled(fitted: dict[str, Any]) -> dict[str, tuple[list[int], float, float]]:
    """How a control (stages/gating/controls.py) predicts wrongly: mirrored at the mean.

    Output -> the new order of its last axis, then a factor, then a number to add.
    """
    twice = 2 * fitted["mean"]
    return {"value": ([0], -1.0, twice), "interval": ([1, 0], -1.0, twice)}


def predictions(outputs: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> list[dict[str, Any]]:
    """{"value": [N, 1], "interval": [N, 2]} -> the value of each row and the ends of its interval."""
    ends = outputs["interval"].tolist()
    return [
        {"value": value, "low": low, "high": high}
        for (value,), (low, high) in zip(outputs["value"].tolist(), ends, strict=True)
    ]


def agree(live: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], fitted: dict[str, Any]) -> np.ndarray:
    """Outputs of two models for the same rows -> whether the new value lies in the live model's interval, bool [N]."""
    low, high = live["interval"].T
    value = new["value"][:, 0]
    return np.asarray((low <= value) & (value <= high))
