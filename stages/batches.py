"""Whole batches out of memory-mapped arrays, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from stages.arrays import Split, open_split

Batch = tuple[list[Tensor], Tensor, Tensor]  # blocks [B, *shape], target [B, ...], sample numbers int64 [B]


class Batches:
    """One process's share of a split. Each sample of an evaluation is seen exactly once over all processes.

    In training, epoch e's order is a permutation of (seed, e), cut into batches of `batch_size` over all processes;
    an incomplete last batch is left out, so that every process always holds an equal share.
    """

    def __init__(self, split: Split, batch_size: int, *, seed: int | None, rank: int = 0, world: int = 1) -> None:
        self.split, self.seed, self.rank, self.world = split, seed, rank, world
        self.batch_size = min(batch_size, len(split) // world * world) if seed is not None else batch_size
        self.epoch = 0

    batch_sampler = None

    @property
    def sampler(self) -> Batches:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.seed is not None:
            return len(self.split) // self.batch_size
        mine = len(range(self.rank, len(self.split), self.world))
        return -(-mine // self._share)

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            mine = np.arange(self.rank, len(self.split), self.world)
            for first in range(0, len(mine), self._share):
                yield self._fetch(mine[first : first + self._share])
            return
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.split))
        for first in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._fetch(order[first : first + self.batch_size][self.rank :: self.world])

    @property
    def _share(self) -> int:
        return max(1, self.batch_size // self.world)

    def _fetch(self, samples: np.ndarray) -> Batch:
        blocks = [torch.from_numpy(block[samples]) for block in self.split.blocks]
        return blocks, torch.from_numpy(self.split.target[samples]), torch.from_numpy(samples)


class ArraysModule(L.LightningDataModule):
    """The train and val splits of `folder`."""

    def __init__(self, folder: Path, batch_size: int, seed: int) -> None:
        super().__init__()
        self.folder, self.batch_size, self.seed = folder, batch_size, seed

    def train_dataloader(self) -> Batches:
        return self._batches("train", self.seed)

    def val_dataloader(self) -> Batches:
        return self._batches("val", None)

    def _batches(self, split: str, seed: int | None) -> Batches:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return Batches(open_split(self.folder, split), self.batch_size, seed=seed, rank=rank, world=world)
