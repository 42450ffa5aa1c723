"""The head of a classification: scores and loss."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from stages.schema import Column


class Head(nn.Module):
    """Features [N, F] -> logits [N, C].

    Args:
        label_smoothing: share of the target probability that is spread over all classes.
        class_weights: "balanced" gives every class the same weight in the loss, however rare it is.
    """

    weight: Tensor

    def __init__(
        self,
        target: Column,
        width: int,
        *,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__()
        counts = torch.tensor(target.fitted["counts"], dtype=torch.float32)
        balanced = counts.sum() / (len(counts) * counts)  # the mean weight of a training sample is 1
        self.register_buffer(
            "weight", balanced if class_weights == "balanced" else torch.ones_like(counts), persistent=False
        )
        self.label_smoothing = label_smoothing
        self.linear = nn.Linear(width, len(counts))

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Cross entropy of logits [N, C] with codes int64 [N].

        A plain mean over the batch, so that gradients averaged over equal shards equal those of one process.
        """
        losses_N = functional.cross_entropy(scores.float(), y, reduction="none", label_smoothing=self.label_smoothing)
        return (losses_N * self.weight[y]).mean()

    def predict(self, scores: Tensor) -> dict[str, Tensor]:
        """Logits [N, C] -> {"probabilities": float32 [N, C]}."""
        return {"probabilities": scores.float().softmax(1)}
