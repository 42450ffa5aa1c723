"""The head of a regression: scores in the target's standard deviations, and loss."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from stages.schema import Column


class Head(nn.Module):
    """Features [N, F] -> the standardized value [N, 1].

    Args:
        loss: squared error, absolute error, or Huber's, which is squared up to `delta` and absolute beyond.
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
        """Mean loss of scores [N, 1] for values [N, 1], in standard deviations."""
        truth = (y - self.mean) / self.std
        if self.errors == "mse":
            return functional.mse_loss(scores.float(), truth)
        if self.errors == "mae":
            return functional.l1_loss(scores.float(), truth)
        return functional.huber_loss(scores.float(), truth, delta=self.delta)

    def calibrate(self, scores: Tensor, y: Tensor) -> None:
        """Set the interval's width by the errors on rows that training has not seen, [N, 1] each.

        Split conformal prediction: the ceil((N + 1) * coverage)-th smallest absolute error. New rows from the same
        distribution then lie inside with at least that probability, however good the network is (Lei, G'Sell, Rinaldo,
        Tibshirani and Wasserman, "Distribution-free predictive inference for regression", JASA 2018, theorem 2.2). With
        too few rows for that, the largest error.
        """
        errors = ((y - self.mean) / self.std - scores.float()).abs().flatten().sort().values
        rank = min(len(errors), math.ceil((len(errors) + 1) * self.coverage))
        self.halfwidth.copy_(errors[rank - 1])

    def predict(self, scores: Tensor) -> dict[str, Tensor]:
        """Scores [N, 1] -> {"value": float32 [N, 1], "interval": [N, 2]} in the target's unit."""
        value, reach = scores.float() * self.std + self.mean, self.halfwidth * self.std
        return {"value": value, "interval": torch.cat([value - reach, value + reach], dim=1)}
