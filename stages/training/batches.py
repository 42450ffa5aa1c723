"""Batches from memory-mapped arrays, the same for any number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from stages.core.errors import UserError
from stages.tables.arrays import Split, open_split

Batch = tuple[list[Tensor], Tensor, np.ndarray]  # blocks [B, *shape], target [B, ...], sample numbers int64 [B]


class Batches:
    """One process's share of a split's batches. Without a seed, for evaluation: the processes share each sample once.

    With a seed, for training: the order of epoch e is a permutation drawn from (seed, e), cut into batches of
    `batch_size` over all processes. An incomplete last batch is dropped, so that the processes have equal shares. With
    `only_first`, every batch is the first one of epoch 0.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
        only_first: bool = False,
    ) -> None:
        self.split, self.seed, self.rank, self.world, self.only_first = split, seed, rank, world, only_first
        self.batch_size = min(batch_size, len(split) // world * world) if seed is not None else batch_size
        self.epoch = 0

    batch_sampler = None

    @property
    def sampler(self) -> Batches:
        """Lightning calls `set_epoch` on this."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next order is drawn for."""
        self.epoch = 0 if self.only_first else epoch

    def __len__(self) -> int:
        if self.seed is not None:
            return len(self.split) // self.batch_size
        samples = len(range(self.rank, len(self.split), self.world))
        return math.ceil(samples / self._share)

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            samples = np.arange(self.rank, len(self.split), self.world)
            for first in range(0, len(samples), self._share):
                yield self._fetch(samples[first : first + self._share])
            return
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.split))
        for batch in range(len(self)):
            first = 0 if self.only_first else batch * self.batch_size
            yield self._fetch(order[first : first + self.batch_size][self.rank :: self.world])

    @property
    def _share(self) -> int:
        return max(1, self.batch_size // self.world)

    def _fetch(self, samples: np.ndarray) -> Batch:
        blocks = [torch.from_numpy(block[samples]) for block in self.split.blocks]
        return blocks, torch.from_numpy(self.split.target[samples]), samples


class ArraysModule(L.LightningDataModule):
    """The train and val splits of `folder`. With `overfit`, both are one batch of train.

    Raises:
        UserError: a split has fewer samples than there are processes.
    """

    def __init__(self, folder: Path, batch_size: int, seed: int, overfit: bool = False) -> None:
        super().__init__()
        self.folder, self.batch_size, self.seed, self.overfit = folder, batch_size, seed, overfit

    def train_dataloader(self) -> Batches:
        return self._batches(self._open("train"), self.seed)

    def val_dataloader(self) -> Batches:
        if not self.overfit:
            return self._batches(self._open("val"), None)
        train = self._open("train")
        first = next(iter(Batches(train, self.batch_size, seed=self.seed)))[2]
        batch = Split(tuple(block[first] for block in train.blocks), train.target[first], train.rows[first])
        return self._batches(batch, None)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # Lightning's search of each batch for tensors takes as long as a step of a small network
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _open(self, name: str) -> Split:
        split = open_split(self.folder, name)
        if self.trainer and len(split) < self.trainer.world_size:
            raise UserError(
                "train-few-samples",
                f"the {name} split has {len(split)} samples, too few for {self.trainer.world_size} processes: "
                "lower train.devices",
            )
        return split

    def _batches(self, split: Split, seed: int | None) -> Batches:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return Batches(split, self.batch_size, seed=seed, rank=rank, world=world, only_first=self.overfit)
