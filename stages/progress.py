"""What happens beside the training steps: curves, plain progress lines, averaged weights."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class Recorder(Callback):
    """Keeps a row of figures for each epoch, through a resume as well, and prints it with the throughput."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._began_s = 0.0

    def on_train_epoch_start(self, trainer: Trainer, learner: LightningModule) -> None:
        self._began_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, learner: LightningModule) -> None:
        figures = {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": trainer.current_epoch + 1, "learning_rate": float(f"{rate:.6g}"), **figures})
        if trainer.is_global_zero:
            batches = trainer.num_training_batches * trainer.train_dataloader.batch_size
            rate_per_s = batches / (time.perf_counter() - self._began_s)
            headline = f"val_{next(iter(learner.metrics.keys()))}"
            shown = "  ".join(f"{name} {figures[name]:.4f}" for name in ("train_loss", "val_loss", headline))
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}  {rate_per_s:,.0f} samples/s",
                flush=True,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class Averaging(WeightAveraging):
    """An exponential moving average of the weights, whose decay rises to `decay` as steps go by.

    min(decay, (1 + n) / (10 + n)) after n steps, as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
            if not averaged.is_floating_point():
                return current
            n = int(steps)
            return averaged.lerp(current.to(averaged.dtype), 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(avg_fn=average)
