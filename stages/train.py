"""Train the network on the arrays; resume by itself where an earlier run of the same inputs was killed."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import contextlib
import csv
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import arithmetic, command, inputs
from stages.core.errors import Busy, Misuse
from stages.evaluation.metrics import of as metrics_of
from stages.settings import params
from stages.tables.table import sha256
from stages.training import devices, processes
from stages.training.earlier_weights import pinned

SCRATCH = Path(".scratch/train")
CALIBRATION_BATCH = 1024


def main(arrays: Path, schema: Path, weights: Path, curves: Path) -> None:
    """Fit the network that params describe and write its weights and learning curves."""
    said = params.load("train")
    if said.train.arithmetic == "portable":
        arithmetic.portable()
    if processes.ours_to_start(said.train.devices, said.train.num_nodes):
        paths = (arrays, schema, weights, curves)
        processes.launch("stages.train", paths, said.train.devices, said.train.num_nodes, said.train.threads)
        if os.environ.get("NODE_RANK", "0") == "0":
            forget()
    elif fit(said, arrays, schema, weights, curves) and not processes.launched():
        forget()


def forget() -> None:
    """Remove the state of this training and of others, which would pile up; it stays if the inputs have changed."""
    with contextlib.suppress(Busy), command.holding(SCRATCH.with_suffix(".lock"), "training"):
        inputs.confirm()
        shutil.rmtree(SCRATCH, ignore_errors=True)


def fit(said: Any, arrays: Path, schema: Path, weights: Path, curves: Path) -> bool:
    """What each training process does; the first of them writes, and gives True."""
    import torch

    from stages.training.batches import ArraysModule

    train = said.train
    torch.set_num_threads(train.threads)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs, and slows a small cnn by 3 to 7 %
    on_gpu = devices.on_gpu(train, torch.cuda.device_count())
    learner = build(said, schema)
    data = ArraysModule(arrays, train.batch_size, train.seed, overfit=train.debug == "overfit")
    scratch = SCRATCH / inputs_digest(said, arrays, schema)
    callbacks, kept = make_callbacks(train, scratch)
    trainer = make_trainer(train, scratch, on_gpu, callbacks)
    first = trainer.is_global_zero
    with command.holding(SCRATCH.with_suffix(".lock"), "training") if first else contextlib.nullcontext():
        last = resumable(scratch / "last.ckpt", aloud=first)
        with processes.together():
            trainer.fit(learner, data, ckpt_path=last, weights_only=True)
        if first:
            state_dict = torch.load(kept, "cpu", weights_only=True)["state_dict"]
            own = {name.removeprefix("network."): tensor for name, tensor in state_dict.items()}
            own = calibrated(learner.network.spec, own, schema, arrays)
            write(learner.network.spec, own, callbacks[0].rows, weights, curves)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return bool(first)


def build(said: Any, schema_path: Path) -> Any:
    """The learner with its network, initialised from the seed or from earlier weights."""
    import torch

    from stages.networks import network
    from stages.schema import Schema
    from stages.training.learner import Learner

    schema = Schema.load(schema_path)
    model, train = said.model, said.train
    parts = {"encoders": model.encoders, "trunk": model.trunk, "head": model.head}
    try:
        torch.manual_seed(train.seed)
        net = network.Network(schema, network.resolve(schema, parts))
        augment = network.augmenter(schema, train.augment) if train.augment else None
        if model.init_from != "none":
            network.initialise(net, pinned(Path(model.init_from), model.init_sha256), model.name_map)
    except ValueError as error:
        raise Misuse(f"params.yaml: {error}") from error
    if model.freeze_encoders:
        net.encoders.requires_grad_(False)
    names = ("seed", "optimizer", "learning_rate", "momentum", "schedule", "warmup_epochs", "l1", "l2", "arithmetic")
    metrics = metrics_of(schema.target).metrics(schema.target)
    augment = augment if train.debug == "none" else None
    return Learner(net, metrics, augment, **{name: getattr(train, name) for name in names})


def inputs_digest(said: Any, arrays: Path, schema: Path) -> str:
    """Of all that training depends on: data, parameters, code, libraries, place. Names the scratch folder."""
    import lightning
    import torch

    seen = [sha256(path) for path in (Path(arrays) / "summary.json", schema)]
    if (snapshot := inputs.current()) is not None:
        seen += [json.dumps(snapshot.record, sort_keys=True)]  # as it was loaded
    else:
        seen += [sha256(path) for path in sorted(Path(__file__).parent.rglob("*.py"))]
    # Lightning's checkpoints hold absolute paths, so those of a folder that has moved are another run's
    around = [torch.__version__, lightning.__version__, str(SCRATCH.resolve())]
    return hashlib.sha256(json.dumps([seen, around, params.values(said)], sort_keys=True).encode()).hexdigest()[:16]


def make_callbacks(train: Any, scratch: Path) -> tuple[list[Any], Path]:
    """What follows the training, the recorder of the curves first; and the checkpoint whose weights are the result."""
    from stages.training import callbacks as progress

    chosen: list[Any] = [progress.Recorder()]
    kept = "last"
    if train.average:
        chosen.append(progress.Averaging(train.average))
    if train.debug == "overfit":
        chosen.append(progress.Stop("val_loss", patience=train.epochs, stopping_threshold=0.01))
    elif train.patience:
        kept = "best"
        chosen += [progress.Stop("val_loss", patience=train.patience), progress.Saver(scratch, kept, "val_loss")]
    chosen.append(progress.Saver(scratch, "last"))  # after the others, whose state it holds
    if sys.stdout.isatty():
        chosen.append(progress.Bar())
    return chosen, scratch / f"{kept}.ckpt"


def make_trainer(train: Any, scratch: Path, on_gpu: bool, callbacks: list[Any]) -> Any:
    """Lightning's trainer as params describe it."""
    import lightning as L
    from lightning.pytorch import strategies

    from stages.training import callbacks as progress

    _quiet()
    several = train.devices * train.num_nodes > 1
    limits = {"limit_train_batches": 3, "limit_val_batches": 2, "max_epochs": 1} if train.debug == "fast" else {}
    name = "ddp" if train.strategy == "auto" and several else train.strategy
    strategy = {
        # syncing buffers would wait for processes that have a batch less of val
        "ddp": lambda: strategies.DDPStrategy(forward_sync_buffers=False),
        # never run for want of GPUs: checkpoints must be full, since the weights are taken out of them
        "fsdp": lambda: strategies.FSDPStrategy(state_dict_type="full"),
    }.get(name, lambda: name)()
    return L.Trainer(
        **{
            "max_epochs": train.epochs,
            "accelerator": "gpu" if on_gpu else "cpu",
            "devices": train.devices,
            "num_nodes": train.num_nodes,
            "strategy": strategy,
            "sync_batchnorm": on_gpu and several,
            "precision": "32-true" if train.precision == "32" else train.precision,
            "gradient_clip_val": train.clip_norm or None,
            "accumulate_grad_batches": train.accumulate,
            "callbacks": callbacks,
            "plugins": [progress.WholeFiles()],
            "default_root_dir": scratch,
            "deterministic": "warn",
            "logger": False,
            "enable_progress_bar": sys.stdout.isatty(),
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            **limits,
        }
    )


def resumable(last: Path, aloud: bool) -> Path | None:
    """The checkpoint to go on from, if there is one that can be read."""
    import torch

    if not last.exists():
        return None
    try:
        epochs = torch.load(last, "cpu", weights_only=True, mmap=True)["epoch"] + 1
    except Exception as error:  # whatever torch finds wrong with bytes
        if aloud:
            print(f"starting over: {last} cannot be read ({type(error).__name__})", flush=True)
        return None
    if aloud:
        print(f"resumed after epoch {epochs}", flush=True)
    return last


def calibrated(spec: Any, state_dict: Mapping[str, Any], schema: Path, arrays: Path) -> Mapping[str, Any]:
    """The weights with what the head learns from its answers to the val split, where it learns anything."""
    import torch

    from stages.networks import network
    from stages.schema import Schema
    from stages.tables.arrays import open_split

    net = network.Network(Schema.load(schema), spec).eval()
    if not hasattr(net.head, "calibrate"):
        return state_dict
    net.load_state_dict(state_dict)
    val, scores = open_split(arrays, "val"), []
    with torch.inference_mode():
        for first in range(0, len(val), CALIBRATION_BATCH):
            blocks = [torch.from_numpy(block[first : first + CALIBRATION_BATCH].copy()) for block in val.blocks]
            scores.append(net(blocks))
        net.head.calibrate(torch.cat(scores), torch.from_numpy(val.target))
    return net.state_dict()


def write(
    spec: Any, state_dict: Mapping[str, Any], rows: Sequence[dict[str, float]], weights: Path, curves: Path
) -> None:
    """The network's weights as safetensors, and a line of the curves for each epoch."""
    from stages.networks import network

    with command.replacing(weights) as whole:
        network.save(whole, state_dict, spec)
    with command.replacing(curves) as whole, whole.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _quiet() -> None:
    """Leave Lightning's warnings and drop its hints."""
    import logging
    import warnings

    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # what is logged is the same in all processes already
    hints = "does not have many workers|num_workers|LeafSpec|Checkpoint directory|sync_dist=True"
    warnings.filterwarnings("ignore", message=f".*({hints}).*")
    os.environ.setdefault("NCCL_DEBUG", "WARN")


if __name__ == "__main__":
    command.run(main)
