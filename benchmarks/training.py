"""Epochs of training with Lightning, relative to a hand-written loop on in-memory tensors, with batches of 256."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import workspace
from stages.settings import params
from stages.tables.arrays import open_split
from stages.training.learner import build_optimizer

BATCH, THREADS = 256, 1


class Case(NamedTuple):
    """A network on a preset's data. `steps`: the steps of an epoch, few enough that all rounds take minutes."""

    network: str
    preset: str
    model: dict[str, Any]
    steps: int
    rounds: int
    bound: float  # of the ratio; 0: the goal is in milliseconds per step instead


TABLE = {"number": {"name": "linear", "size": 32}, "category": {"name": "embedding", "size": 32}}
CASES = (
    Case("cnn", "fashion-mnist", {"encoders": {"image": {"name": "cnn"}}}, 30, 4, 1.05),
    Case("mlp", "fashion-mnist", {"encoders": {"image": {"name": "mlp", "hidden": [64]}}}, 200, 12, 0),
    Case("residual", "adult", {"encoders": TABLE, "trunk": {"name": "residual", "width": 256}}, 80, 6, 1.3),
    Case("transformer", "adult", {"encoders": TABLE, "trunk": {"name": "transformer"}}, 100, 4, 1.05),
    Case("text transformer", "clinc150", {"encoders": {"text": {"name": "transformer"}}}, 20, 4, 1.05),
)


def main() -> list[dict[str, Any]]:
    """The ratio of the minimal times, or the additional time of a step; both loops in turn."""
    torch.set_num_threads(THREADS)
    results = []
    for preset in dict.fromkeys(case.preset for case in CASES):
        with tempfile.TemporaryDirectory() as temporary:
            folder = workspace.project(Path(temporary) / "project", preset=preset)
            common = {"batch_size": BATCH, "epochs": 2, "augment": {}, "average": 0.0, "patience": 0}
            params.edit({"train": common}, folder / "params.yaml")
            workspace.init(folder)
            (folder / "data" / "raw").mkdir(parents=True)
            (folder / "data" / "raw" / preset).symlink_to(workspace.DATA / preset)
            for name in ("ingest", "validate", "prepare"):
                workspace.stage(folder, name)
            os.chdir(folder)
            results += [measure(case) for case in CASES if case.preset == preset]
            os.chdir(workspace.ROOT)
    return results


def measure(case: Case) -> dict[str, Any]:
    """One network, with the same optimizer and without a schedule in both loops."""
    params.edit({"model": case.model})
    by_hand, ours = [], []
    for _ in range(case.rounds):
        by_hand.append(epoch_by_hand(case.steps))
        ours.append(epoch_with_lightning(case.steps))
    hand_s, ours_s = min(by_hand), min(ours)
    figure, goal = f"{ours_s / hand_s:.2f}", f"at most {case.bound:g}"
    if not case.bound:
        figure, goal = f"{(ours_s - hand_s) / case.steps * 1000:.2f} ms", "at most 0.5 ms per step more"
    return {
        "what": f"training `{case.network}` ({case.preset}) with Lightning, "
        "relative to a hand-written loop on in-memory tensors",
        "figure": figure,
        "goal": goal,
        "with": f"{ours_s:.2f} s against {hand_s:.2f} s for {case.steps} steps of {BATCH}",
    }


def epoch_by_hand(steps: int) -> float:
    """Seconds of one epoch of a plain loop, after a warm-up epoch."""
    from stages.train import Parameters, build

    parameters = params.load("train", Parameters)
    learner = build(parameters, Path("data/schema.json"))
    network, train = learner.network.train(), parameters.train
    split = open_split(Path("data/arrays"), "train")
    blocks = [torch.from_numpy(np.array(block)) for block in split.blocks]
    y = torch.from_numpy(np.array(split.target))
    optimizer = build_optimizer(train.optimizer, list(network.parameters()), 1e-3, train.momentum, train.l2)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        order = torch.randperm(len(y))
        for first in range(0, steps * BATCH, BATCH):
            chosen = order[first : first + BATCH]
            loss = network.head.loss(network([block[chosen] for block in blocks]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - began
    return seconds


def epoch_with_lightning(steps: int) -> float:
    """Seconds of the training steps of one epoch of the stage's trainer, after a warm-up epoch."""
    from lightning.pytorch import Callback

    from stages.train import Parameters, build, make_callbacks, make_trainer
    from stages.training.batches import ArraysModule

    class Clock(Callback):
        """Times an epoch from its start to its last step, without validation."""

        def on_train_epoch_start(self, trainer: Any, learner: Any) -> None:
            self.began_s = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, learner: Any, outputs: Any, batch: Any, index: int) -> None:
            if index == trainer.num_training_batches - 1:
                self.seconds = time.perf_counter() - self.began_s

    listed = params.load("train", Parameters)
    with tempfile.TemporaryDirectory() as scratch:
        clock = Clock()
        _, callbacks, _ = make_callbacks(listed.train, Path(scratch))
        trainer = make_trainer(listed.train, Path(scratch), False, [clock, *callbacks])
        trainer.fit_loop.max_epochs = 2
        trainer.limit_train_batches = steps
        data = ArraysModule(Path("data/arrays"), listed.train.batch_size, listed.train.seed)
        trainer.fit(build(listed, Path("data/schema.json")), data)
    return clock.seconds


if __name__ == "__main__":
    for result in main():
        print(json.dumps(result))
