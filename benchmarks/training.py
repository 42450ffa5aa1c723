"""Epochs of training with Lightning over the same by hand on in-memory tensors: Fashion-MNIST, batch 256."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import workspace
from stages import params
from stages.arrays import open_split
from stages.learner import build_optimizer

BATCH, THREADS = 256, 1
ROUNDS = {"cnn": 4, "mlp": 12}
STEPS = {"cnn": 30, "mlp": 200}  # of an epoch: a share of the whole, that all rounds fit into minutes
NETWORKS = {"cnn": {"name": "cnn"}, "mlp": {"name": "mlp", "hidden": [64]}}


def main() -> list[dict[str, Any]]:
    """The ratio of the least times, and what a step costs above the hand-written one; the two in turn."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        changes = {"train": {"batch_size": BATCH, "epochs": 2, "augment": {}, "average": 0.0, "patience": 0}}
        folder = workspace.init(workspace.project(Path(temporary) / "project", changes))
        data = {"data": {"path": "data/raw/fashion-mnist", "format": "idx"}}
        params.edit(data, folder / "params.yaml")
        (folder / "data" / "raw").mkdir(parents=True)
        (folder / "data" / "raw" / "fashion-mnist").symlink_to(workspace.DATA / "fashion-mnist")
        for name in ("ingest", "validate", "prepare"):
            workspace.stage(folder, name)
        os.chdir(folder)
        results = [measure(name, encoder) for name, encoder in NETWORKS.items()]
        os.chdir(workspace.ROOT)
    return [result for pair in results for result in pair]


def measure(name: str, encoder: dict[str, Any]) -> list[dict[str, Any]]:
    """One network, with the optimiser and schedule-free loop of both."""
    params.edit({"model": {"encoders": {"image": encoder}}})
    by_hand, ours = [], []
    steps = STEPS[name]
    for _ in range(ROUNDS[name]):
        by_hand.append(epoch_by_hand(steps))
        ours.append(epoch_with_lightning(steps))
    hand_s, ours_s = min(by_hand), min(ours)
    extra_ms = (ours_s - hand_s) / steps * 1000
    goal = "at most 1.05" if name == "cnn" else "at most 0.5 ms a step above it"
    figure = f"{ours_s / hand_s:.2f}" if name == "cnn" else f"{extra_ms:.2f} ms"
    return [
        {
            "what": f"training `{name}` with Lightning, over the same by hand on in-memory tensors",
            "figure": figure,
            "goal": goal,
            "with": f"{ours_s:.2f} s against {hand_s:.2f} s for {steps} steps of {BATCH}",
        }
    ]


def epoch_by_hand(steps: int) -> float:
    """Seconds of one epoch of the plainest loop, after one to warm up."""
    from stages.train import build

    learner = build(params.load("train"), Path("data/schema.json"))
    network, said = learner.network.train(), params.load("train").train
    split = open_split(Path("data/arrays"), "train")
    x, y = torch.from_numpy(np.array(split.blocks[0])), torch.from_numpy(np.array(split.target))
    optimizer = build_optimizer(said.optimizer, list(network.parameters()), 1e-3, said.momentum, said.l2)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        order = torch.randperm(len(x))
        for first in range(0, steps * BATCH, BATCH):
            chosen = order[first : first + BATCH]
            loss = network.head.loss(network([x[chosen]]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - began
    return seconds


def epoch_with_lightning(steps: int) -> float:
    """Seconds of the training steps of one epoch of the train stage's own trainer, after one to warm up."""
    from lightning.pytorch import Callback

    from stages.batches import ArraysModule
    from stages.train import build, make_callbacks, make_trainer

    class Clock(Callback):
        """From the epoch's start to its last step: validation is not part of the loop by hand."""

        def on_train_epoch_start(self, trainer: Any, learner: Any) -> None:
            self.began_s = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, learner: Any, outputs: Any, batch: Any, index: int) -> None:
            if index == trainer.num_training_batches - 1:
                self.seconds = time.perf_counter() - self.began_s

    said = params.load("train")
    with tempfile.TemporaryDirectory() as scratch:
        clock = Clock()
        callbacks, _ = make_callbacks(said.train, Path(scratch))
        trainer = make_trainer(said.train, Path(scratch), False, [clock, *callbacks])
        trainer.fit_loop.max_epochs = 2
        trainer.limit_train_batches = steps
        data = ArraysModule(Path("data/arrays"), said.train.batch_size, said.train.seed)
        trainer.fit(build(said, Path("data/schema.json")), data)
    return clock.seconds


if __name__ == "__main__":
    for result in main():
        print(json.dumps(result))
