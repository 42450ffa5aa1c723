"""Train the network on the arrays; resume by itself where an earlier run of the same inputs was killed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages import command, params
from stages.errors import UserError
from stages.table import sha256

SCRATCH = Path(".scratch/train")


def main(arrays: Path, schema: Path, weights: Path, curves: Path) -> None:
    """Fit the network that params describe and write its weights and learning curves."""
    said = params.load("train")
    import torch

    from stages.batches import ArraysModule

    torch.set_num_threads(said.train.threads)
    learner = build(said, schema)
    data = ArraysModule(arrays, said.train.batch_size, said.train.seed)
    scratch = SCRATCH / inputs_digest(said, arrays, schema)
    trainer, recorder = make_trainer(said.train, scratch)
    last = scratch / "last.ckpt"
    trainer.fit(learner, data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        keep_best(trainer, learner)
        write(learner, recorder.rows, weights, curves)
        shutil.rmtree(SCRATCH, ignore_errors=True)


def build(said: Any, schema_path: Path) -> Any:
    """The learner with its network, initialised from the seed or from earlier weights."""
    import torch

    from stages.learner import Learner
    from stages.networks import network
    from stages.schema import Schema

    schema = Schema.load(schema_path)
    model, train = said.model, said.train
    parts = {"encoders": model.encoders, "trunk": model.trunk, "head": model.head}
    try:
        torch.manual_seed(train.seed)
        net = network.Network(schema, network.resolve(schema, parts))
        augment = network.augmenter(schema, train.augment if train.debug == "none" else {})
        if model.init_from != "none":
            network.initialise(net, checked(Path(model.init_from), model.init_sha256), model.name_map)
    except ValueError as error:
        raise UserError(f"params.yaml: {error}") from error
    if model.freeze_encoders:
        net.encoders.requires_grad_(False)
    names = ("seed", "optimizer", "learning_rate", "momentum", "schedule", "warmup_epochs", "l1", "l2")
    metrics = network.head_module(schema.target).metrics(schema.target)
    return Learner(net, metrics, augment, **{name: getattr(train, name) for name in names})


def checked(path: Path, expected: str) -> Path:
    """The path of earlier weights, if its bytes are those that params pin.

    Raises:
        UserError: no such file, or another SHA-256.
    """
    if not path.is_file():
        raise UserError(f"model.init_from: there is no file {path}")
    if (found := sha256(path)) != expected:
        raise UserError(f"model.init_sha256: {path} has {found}; write that, if these are the weights you mean")
    return path


def inputs_digest(said: Any, arrays: Path, schema: Path) -> str:
    """Of all that training depends on: data, parameters, code and library. Names the scratch folder."""
    import torch

    code = sorted(Path(__file__).parent.rglob("*.py"))
    seen = [sha256(path) for path in (Path(arrays) / "summary.json", schema, *code)]
    return hashlib.sha256(
        json.dumps([seen, params.values(said), torch.__version__], sort_keys=True).encode()
    ).hexdigest()[:16]


def make_trainer(train: Any, scratch: Path) -> tuple[Any, Any]:
    """Lightning's trainer as params describe it, and the callback that records the curves."""
    import lightning as L
    import torch
    from lightning.pytorch import callbacks

    from stages import progress

    _quiet()
    recorder = progress.Recorder()
    best = train.patience > 0
    saver = callbacks.ModelCheckpoint(
        scratch,
        monitor="val_loss" if best else None,
        save_last=True,
        save_top_k=1 if best else 0,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    chosen: list[Any] = [recorder, saver]
    if best:
        chosen.append(callbacks.EarlyStopping("val_loss", patience=train.patience, check_on_train_epoch_end=True))
    if train.average:
        chosen.append(progress.Averaging(train.average))
    terminal = sys.stdout.isatty()
    if terminal:
        chosen.append(callbacks.RichProgressBar())
    processes = train.devices * train.num_nodes
    if train.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("train.accelerator is gpu, but torch finds no GPU here: say cpu or auto")
    limits: dict[str, Any] = {
        "none": {},
        "fast": {"limit_train_batches": 3, "limit_val_batches": 2, "max_epochs": 1},
        "overfit": {"limit_train_batches": 1, "limit_val_batches": 1},
    }[train.debug]
    return L.Trainer(
        **{
            "max_epochs": train.epochs,
            "accelerator": train.accelerator,
            "devices": train.devices,
            "num_nodes": train.num_nodes,
            "strategy": "ddp" if train.strategy == "auto" and processes > 1 else train.strategy,
            "precision": "32-true" if train.precision == "32" else train.precision,
            "gradient_clip_val": train.clip_norm or None,
            "accumulate_grad_batches": train.accumulate,
            "callbacks": chosen,
            "default_root_dir": scratch,
            "deterministic": "warn",
            "logger": False,
            "enable_progress_bar": terminal,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            **limits,
        }
    ), recorder


def keep_best(trainer: Any, learner: Any) -> None:
    """With early stopping, take back the weights of the epoch with the least val loss."""
    import torch

    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if trainer.early_stopping_callback and best:
        learner.load_state_dict(torch.load(best, weights_only=True)["state_dict"])


def write(learner: Any, rows: Sequence[dict[str, float]], weights: Path, curves: Path) -> None:
    """The weights as safetensors, and a line of the curves for each epoch."""
    from stages.networks import network

    with command.replacing(weights) as whole:
        network.save(whole, learner.network.state_dict(), learner.network.spec)
    with command.replacing(curves) as whole, whole.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _quiet() -> None:
    """Leave Lightning's warnings and drop its hints."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message=".*(does not have many workers|num_workers|LeafSpec|Checkpoint directory).*"
    )
    os.environ.setdefault("NCCL_DEBUG", "WARN")


if __name__ == "__main__":
    command.run(main)
