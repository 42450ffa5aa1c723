"""Callbacks of training: learning curves, progress lines, atomic checkpoints, early stopping, averaged weights."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from stages.core import inputs
from stages.core.files import replacing


class Recorder(Callback):
    """Records the metrics of each epoch, also over a resume, and prints them with the throughput."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._began_s = self._took_s = 0.0

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        if "SLURM_JOB_ID" not in os.environ:  # under Slurm, Lightning requeues the job
            # Lightning's handler would exit with 0, as after a complete training, and wait for the other processes
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_epoch_start(self, trainer: Trainer, learner: LightningModule) -> None:
        self._began_s = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, learner: LightningModule) -> None:
        self._took_s = time.perf_counter() - self._began_s

    def on_train_epoch_end(self, trainer: Trainer, learner: LightningModule) -> None:
        figures = {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": trainer.current_epoch + 1, "learning_rate": float(f"{rate:.6g}"), **figures})
        if trainer.is_global_zero:
            loader: Any = trainer.train_dataloader
            metrics: Any = learner.metrics
            samples = trainer.num_training_batches * loader.batch_size
            headline = f"val_{next(iter(metrics.keys()))}"
            shown = "  ".join(f"{name} {figures[name]:.4f}" for name in ("train_loss", "val_loss", headline))
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}  "
                f"{samples / self._took_s:,.0f} samples/s",
                flush=True,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class Stop(EarlyStopping):
    """Early stopping that stays stopped when the run is resumed."""

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        trainer.should_stop = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically in their folder; Lightning uses a temporary one, perhaps on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        inputs.confirm(data_only=True)  # parameters and code were read at the start; data are read throughout
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


class Saver(ModelCheckpoint):
    """Writes `folder/name.ckpt` after each epoch, or after each with the lowest `monitor` so far."""

    def __init__(self, folder: Path, name: str, monitor: str | None = None) -> None:
        at_epochs: dict[str, Any] = {"every_n_epochs": 1, "save_on_train_epoch_end": True}
        super().__init__(folder, name, monitor, save_top_k=1, enable_version_counter=False, **at_epochs)

    def on_train_batch_end(self, *_: Any) -> None:
        """Do nothing: it is never time to save within an epoch, and Lightning would check at each step."""


class Bar(RichProgressBar):
    """Counts epochs from 1, as the progress lines do."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class Averaging(WeightAveraging):
    """An exponential moving average of the weights.

    Its decay after n steps is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Iterable[Tensor], current: Iterable[Tensor], steps: Tensor | int) -> None:
            n = int(steps)
            share = 1 - min(decay, (1 + n) / (10 + n))
            for old, new in zip(averaged, current, strict=True):
                if old.is_floating_point():
                    old.lerp_(new.to(old.dtype), share)
                else:
                    old.copy_(new)

        super().__init__(multi_avg_fn=average)
