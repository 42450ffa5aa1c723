"""The Lightning module of a network: loss, optimizer, schedule and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from stages.core.errors import UserError
from stages.networks.draws import Draws
from stages.networks.network import Network
from stages.training.batches import Batch

Augment = Callable[[list[Tensor], Draws], list[Tensor]]


class Learner(L.LightningModule):
    """A network with its loss, optimizer and metrics. All random numbers derive from (seed, epoch, sample or rank)."""

    def __init__(
        self,
        network: Network,
        metrics: MetricCollection,
        augment: Augment | None,
        *,
        seed: int,
        optimizer: str,
        learning_rate: float,
        momentum: float,
        schedule: str,
        warmup_epochs: float,
        l1: float,
        l2: float,
        arithmetic: str,
    ) -> None:
        super().__init__()
        self.network, self.metrics, self.augment, self.seed = network, metrics, augment, seed
        self.optimizer, self.learning_rate, self.momentum, self.l1, self.l2 = optimizer, learning_rate, momentum, l1, l2
        self.schedule, self.warmup_epochs, self.arithmetic = schedule, warmup_epochs, arithmetic
        self._losses: dict[str, list[tuple[Tensor, int]]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it 46 times in a step, and nn.Module is slow at it
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def on_train_start(self) -> None:
        epochs = torch.tensor(float(self.current_epoch), device=self.device)
        if self.trainer.strategy.reduce(epochs, reduce_op="sum") != self.trainer.world_size * self.current_epoch:
            raise UserError(
                "train-nodes-differ",
                "the nodes start at different epochs: .scratch must be one folder that all nodes share",
            )

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch, self.global_rank))  # for dropout
        for module in self.network.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()  # a frozen encoder keeps its batch statistics
        self._losses = {"train": [], "val": []}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        blocks, target, samples = batch
        if self.augment:
            blocks = self.augment(blocks, Draws(self.seed, self.current_epoch, samples))
        loss = self.network.head.loss(*of_each_member(self.network(blocks), target))
        self._losses["train"].append((loss.detach(), len(samples)))
        if self.l1:
            loss = loss + self.l1 * sum(weight.abs().sum() for weight in self.parameters() if weight.requires_grad)
        per_step, batches = self.trainer.accumulate_grad_batches, self._batches_in_step(batch_index)
        return loss if batches == per_step else loss * (per_step / batches)  # Lightning divides by `accumulate`

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():  # all use the batch statistics of the rank whose weights are stored
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        blocks, target, samples = batch
        scores = self.network(blocks)
        self._losses["val"].append((self.network.head.loss(scores, target), len(samples)))
        self.metrics.update(next(iter(self.network.predict(scores).values())).float(), target)

    def on_validation_epoch_end(self) -> None:
        (train_loss, _), (val_loss, seen) = self._mean("train"), self._mean("val")
        loaders: Any = self.trainer.val_dataloaders
        expected = len(loaders.split)
        if self.trainer.limit_val_batches == 1.0 and seen != expected:
            raise RuntimeError(f"validation saw {seen} samples of {expected}")
        if not math.isfinite(train_loss + val_loss):
            raise UserError(
                "train-diverged",
                f"training diverged in epoch {self.current_epoch + 1} (train_loss {train_loss:.3g}, "
                f"val_loss {val_loss:.3g}): lower train.learning_rate, or set train.clip_norm",
            )
        values = {f"val_{name}": value.float() for name, value in self.metrics.compute().items() if value.ndim == 0}
        self.log_dict({"train_loss": train_loss, "val_loss": val_loss, **values})

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule, in Lightning's form."""
        weights: list[Tensor] = [weight for weight in self.parameters() if weight.requires_grad]
        portable = self.arithmetic == "portable"
        optimizer = build_optimizer(self.optimizer, weights, self.learning_rate, self.momentum, self.l2, portable)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(self.warmup_epochs * steps / max(1, self.trainer.max_epochs or 1))
        factor = learning_rate_factor(self.schedule, steps, warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _batches_in_step(self, batch_index: int) -> int:
        """The number of batches in this one's optimizer step: fewer in the last step of an epoch."""
        per_step = self.trainer.accumulate_grad_batches
        return min(per_step, int(self.trainer.num_training_batches) - batch_index // per_step * per_step)

    def _mean(self, split: str) -> tuple[float, int]:
        """The mean loss over the samples of all processes, and the number of samples."""
        losses, counts = zip(*self._losses[split], strict=True)
        weights = torch.tensor(counts, dtype=torch.float64, device=self.device)
        sums = torch.stack([torch.stack(losses).double() @ weights, weights.sum()])
        total, seen = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        return total / seen, int(seen)


def of_each_member(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [N, M, ...] of a trunk with M members, and their targets -> [N * M, ...] each. Others stay as they are."""
    if scores.ndim == 2:
        return scores, target
    return scores.flatten(0, 1), target.repeat_interleave(scores.shape[1], dim=0)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A 63-bit seed for one process in one epoch."""
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0]) >> 1


def build_optimizer(
    name: str, weights: list[Tensor], learning_rate: float, momentum: float, l2: float, portable: bool = False
) -> torch.optim.Optimizer:
    """Build an optimizer by its name in params. `l2` of adamw: decoupled weight decay (Loshchilov and Hutter, 2019).

    `portable`: use torch's own square roots in Adam on a CPU. MKL's refine an approximation that differs between CPUs.
    """
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        fused = portable and weights[0].device.type == "cpu"
        optimizer = kind(weights, learning_rate, weight_decay=l2, fused=fused or None)
        if fused:
            # or Lightning would not clip gradients; none are scaled on a CPU
            optimizer._step_supports_amp_scaling = False
        return optimizer
    return torch.optim.SGD(
        weights,
        learning_rate,
        momentum=0.0 if name == "sgd" else momentum,
        nesterov=name == "nesterov",
        weight_decay=l2,
    )


def learning_rate_factor(schedule: str, steps: int, warmup: int) -> Callable[[int], float]:
    """Step -> share of the learning rate: a linear rise over `warmup` steps, then constant or a cosine down to 0.

    one_cycle rises from 1/25 and falls to 1e-4 of it, both along a cosine (Smith and Topin, 2018).
    """

    def cosine(share: float, begin: float, end: float) -> float:
        return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2

    def factor(step: int) -> float:
        rise = (step + 1) / max(1, warmup)
        fall = min(1.0, (step - warmup) / max(1, steps - warmup))
        if schedule == "one_cycle":
            return cosine(rise, 0.04, 1.0) if step < warmup else cosine(fall, 1.0, 1e-4)
        if step < warmup:
            return rise
        return cosine(fall, 1.0, 0.0) if schedule == "cosine" else 1.0

    return factor
