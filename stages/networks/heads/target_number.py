"""One amount: scores in the target's standard deviations, loss, metrics and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from stages.schema import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {"rmse": (0.0, np.inf), "mae": (0.0, np.inf), "r2": (-np.inf, 1.0)}  # least and largest values
THRESHOLDS = {"r2": {"min": 0.0}}  # to begin with, for a person to raise
MARGINS = {"r2": 0.02}  # by which a model may be worse than the released one
EXPECTED: dict[str, Any] = {}  # of a table's target
ALIKE = 1e-4  # squared standard deviations in all, which torchmetrics takes for none
METRICS_BY_LABEL: dict[str, tuple[float, float]] = {}


class Head(nn.Module):
    """Features [N, F] -> the standardised amount [N, 1].

    Args:
        loss: squared errors, absolute ones, or Huber's, which are squared up to `delta` and absolute beyond.
        delta: in standard deviations of the target.
    """

    mean: Tensor
    std: Tensor
    halfwidth: Tensor

    def __init__(
        self,
        target: Column,
        width: int,
        *,
        loss: Literal["mse", "mae", "huber"] = "mse",
        delta: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(target.fitted[name], dtype=torch.float32), persistent=False)
        self.register_buffer("halfwidth", torch.tensor(0.0))  # of the interval, in standard deviations
        self.coverage: float = target.fitted["coverage"]
        self.errors, self.delta = loss, delta
        self.linear = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Mean error of scores [N, 1] with amounts [N, 1], in standard deviations."""
        truth = (y - self.mean) / self.std
        if self.errors == "mse":
            return functional.mse_loss(scores.float(), truth)
        if self.errors == "mae":
            return functional.l1_loss(scores.float(), truth)
        return functional.huber_loss(scores.float(), truth, delta=self.delta)

    def calibrate(self, scores: Tensor, y: Tensor) -> None:
        """Make the interval as wide as the errors on rows that training has not seen, [N, 1] each.

        Split conformal prediction: the ceil((N + 1) * coverage)-th smallest absolute error. New rows of the same kind
        then lie inside with at least that probability, whatever the network is worth (Lei, G'Sell, Rinaldo, Tibshirani
        and Wasserman, "Distribution-free predictive inference for regression", JASA 2018, theorem 2.2). With fewer
        rows than that needs, the largest error.
        """
        errors = ((y - self.mean) / self.std - scores.float()).abs().flatten().sort().values
        place = min(len(errors), math.ceil((len(errors) + 1) * self.coverage))
        self.halfwidth.copy_(errors[place - 1])

    def answer(self, scores: Tensor) -> dict[str, Tensor]:
        """Scores [N, 1] -> {"value": float32 [N, 1], "interval": [N, 2]} in the target's own unit."""
        value, reach = scores.float() * self.std + self.mean, self.halfwidth * self.std
        return {"value": value, "interval": torch.cat([value - reach, value + reach], dim=1)}


class _R2(R2Score):
    """Of amounts less their mean in training, in standard deviations: it depends on neither, but torchmetrics does.

    The digits of large amounts would cancel out, and squares that add up to less than 1e-4 count as 0. It is NaN where
    all amounts are alike.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.set_dtype(torch.float64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        preds, target = ((amounts.double() - self.mean) / self.std for amounts in (preds, target))
        super().update(preds, target)

    def compute(self) -> Tensor:
        spread = self.sum_squared_error - self.sum_error**2 / self.total
        return super().compute() if self.total > 1 and spread > ALIKE else torch.tensor(torch.nan)


def metrics(target: Column) -> MetricCollection:
    """What training, evaluation and gate measure; `update(values [N, 1], y [N, 1])`."""
    r2 = _R2(target.fitted["mean"], target.fitted["std"])
    return MetricCollection(
        {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "r2": r2}, compute_groups=False
    )


def scalars(computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
    """What `metrics` computed as plain numbers."""
    return {name: float(value) for name, value in computed.items()}


def hits(answers: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics that are shares of hits: none."""
    return {}


def undefined(y: np.ndarray, target: Column) -> set[str]:
    """The metrics that amounts [N, 1] do not define, whatever was answered: r2 of those that are all alike."""
    scaled = (np.asarray(y, np.float64) - target.fitted["mean"]) / target.fitted["std"]
    return set() if len(y) > 1 and scaled.var() * len(y) > ALIKE else {"r2"}


def trees(x: np.ndarray, y: np.ndarray, categories: list[int], new: np.ndarray) -> dict[str, np.ndarray]:
    """The value that boosted trees which learnt from [N, C] with amounts y [N, 1] answer to `new` [M, C]."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(categorical_features=categories, random_state=0).fit(x, y[:, 0])
    return {"value": model.predict(new)[:, None].astype(np.float32)}


def told_by(near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
    """What amounts [N, K, 1] of others, with weights [N, K], tell of each, as the head would answer: mean and range."""
    amounts = near[:, :, 0]
    value = (amounts * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    interval = np.stack([amounts.min(1), amounts.max(1)], axis=1)
    return {"value": value.astype(np.float32), "interval": interval.astype(np.float32)}


def doubts(answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
    """How far each amount is from answers of which it had no part, [N], in standard deviations of the target."""
    return np.abs(np.asarray(answers["value"], np.float64) - y)[:, 0] / float(target.fitted["std"])


def worst(answers: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The positions of all answers, the largest error first."""
    return np.argsort(-np.abs(answers["value"] - y)[:, 0], kind="stable")


def plots(answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> dict[str, Figure]:
    """Outputs {"value": [N, 1]} and amounts [N, 1] -> `answers` and `residuals`."""
    from matplotlib.figure import Figure

    def figure(draw: Any) -> Figure:
        drawn = Figure(figsize=(6.4, 5.6), dpi=100, layout="constrained")
        draw(drawn.subplots(), answers["value"][:, 0], np.asarray(y)[:, 0])
        return drawn

    return {"answers": figure(_draw_answers), "residuals": figure(_draw_residuals)}


def _draw_answers(axes: Any, said: np.ndarray, truth: np.ndarray) -> None:
    ends = [min(said.min(), truth.min()), max(said.max(), truth.max())]
    axes.scatter(truth, said, s=6, alpha=0.4, color="tab:blue", edgecolors="none")
    axes.plot(ends, ends, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="true", ylabel="answered", title="Answers")


def _draw_residuals(axes: Any, said: np.ndarray, truth: np.ndarray) -> None:
    axes.hist(said - truth, bins=50, color="tab:blue")
    axes.axvline(0, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="answered - true", ylabel="samples", title="Residuals")
