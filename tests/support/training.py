"""Small arrays to train on, and readers of what a training writes."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import load_file

from stages.networks import network
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables.arrays import create_split, open_split
from tests.support.project import ROOT

ARGUMENTS = ("arrays", "schema.json", "weights.safetensors", "curves.csv")
OPTIONS = ["--arrays=arrays", "--schema=schema.json", "--weights=weights.safetensors", "--curves=curves.csv"]
MLP = {
    "encoders": {"image": {"name": "mlp", "hidden": [16]}},
    "head": {},
    "trunk": {},
    "init_from": "none",
    "freeze_encoders": False,
}
SHORT = {
    "epochs": 2,
    "batch_size": 32,
    "threads": 1,
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "l2": 0.01,
    "schedule": "one_cycle",
    "warmup_epochs": 1,
    "augment": {},
    "average": 0.0,
    "patience": 0,
    "clip_norm": 0.0,
}
TENSOR = SimpleNamespace(dtype="uint8", shape=(8, 8, 1))
SCHEMA = Schema(
    (Column("image", "image", {}, {"height": 8, "width": 8, "channels": 1, "mean": [65.0], "std": [40.0]}),),
    Column("label", "target_class", {}, {"labels": ["0", "1", "2", "3"], "counts": [20, 50, 60, 70]}),
)


def make_data(folder, rows={"train": 200, "val": 37, "test": 5}):  # noqa: B006 - never changed
    """Noisy 8x8 pictures of four classes: which quarter is bright."""
    numbers = np.random.default_rng(0)
    for split, count in rows.items():
        y = np.arange(count) % 4
        (pictures,) = create_split(folder / "arrays" / split, np.arange(count), y, [TENSOR])
        pictures[:] = numbers.integers(0, 120, pictures.shape)
        for row, code in enumerate(y):
            pictures[row, 4 * (code // 2) :, 4 * (code % 2) :][:4, :4] += 30
    (folder / "arrays/summary.json").write_text(json.dumps({"rows": rows}))
    SCHEMA.dump(folder / "schema.json")


def settle(folder, changes=None, model=None):
    """Make a folder to train in: a short training with `changes`, independent of the project's own parameters."""
    folder.mkdir(exist_ok=True)
    if not (folder / "arrays").exists():
        make_data(folder)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    params.edit({"model": MLP | (model or {}), "train": SHORT | (changes or {})}, folder / "params.yaml")
    return folder


def outputs(folder):
    return [(folder / name).read_bytes() for name in ARGUMENTS[2:]]


def weights(folder):
    return load_file(folder / "weights.safetensors")


def val_loss(folder):
    """The val loss of the stored weights, computed without Lightning."""
    val, net = open_split(folder / "arrays", "val"), network.load(folder / "weights.safetensors", SCHEMA)
    with torch.no_grad():
        return float(net.head.loss(net([torch.from_numpy(np.array(val.blocks[0]))]), torch.from_numpy(val.target)))


def curves(folder):
    with (folder / "curves.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
