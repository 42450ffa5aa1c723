"""Batches: the shares of several processes, and the samples in each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from stages.core.errors import UserError
from stages.tables.arrays import open_split
from stages.training.batches import ArraysModule, Batches
from tests.support.failing import failing
from tests.support.training import make_data


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 37])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_shares_hold_each_sample_once(tmp_path, rows, world):
    make_data(tmp_path, {"val": rows})
    split = open_split(tmp_path / "arrays", "val")
    shares = [Batches(split, 6, seed=None, rank=rank, world=world) for rank in range(world)]
    seen = [sample for share in shares for _, _, samples in share for sample in samples]
    assert sorted(seen) == list(range(rows))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_several_processes_share_the_batches_of_one_process(tmp_path):
    make_data(tmp_path, {"train": 50})
    split = open_split(tmp_path / "arrays", "train")
    alone, *two = (Batches(split, 8, seed=3, rank=rank, world=world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    orders = []
    for epoch in range(2):
        for share in (alone, *two):
            share.set_epoch(epoch)
        batches = [list(samples) for _, _, samples in alone]
        halves = [[list(samples) for _, _, samples in share] for share in two]
        assert len(batches) == len(halves[0]) == len(halves[1]) == len(alone) == 6
        assert all(sorted(a) == sorted(b + c) for a, b, c in zip(batches, *halves, strict=True))
        assert len({sample for batch in batches for sample in batch}) == 48
        orders.append(batches)
    assert orders[0] != orders[1]


def test_a_batch_holds_the_samples_of_its_numbers(tmp_path):
    make_data(tmp_path, {"train": 50})
    split = open_split(tmp_path / "arrays", "train")
    for (block,), target, samples in Batches(split, 8, seed=0):
        assert np.array_equal(block, split.blocks[0][samples]) and np.array_equal(target, split.target[samples])


def test_a_split_with_fewer_samples_than_processes_is_an_error(tmp_path):
    make_data(tmp_path, {"train": 50, "val": 3})
    data = ArraysModule(tmp_path / "arrays", 8, 0)
    data.trainer = SimpleNamespace(world_size=4, global_rank=0)
    assert len(data.train_dataloader()) == 6
    with failing(UserError, "train-few-samples", "val", "3", "4"):
        data.val_dataloader()
