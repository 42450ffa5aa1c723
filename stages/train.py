"""Train the network on the arrays; resume if an earlier run with the same inputs was interrupted."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import arithmetic, command, inputs
from stages.core.errors import Busy, Invalid, Misuse
from stages.core.files import replacing, sha256
from stages.core.locks import holding
from stages.evaluation.metrics import of as metrics_of
from stages.settings import params, section, sections
from stages.training import devices, processes
from stages.training.earlier_weights import pinned

if TYPE_CHECKING:
    from lightning import Trainer
    from lightning.pytorch import Callback
    from torch import Tensor

    from stages.training.callbacks import Recorder
    from stages.training.learner import Learner

SCRATCH = Path(".scratch/train")
CALIBRATION_BATCH = 1024


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    model: sections.Model
    train: sections.Train


def main(arrays: Path, schema: Path, weights: Path, curves: Path) -> None:
    """Train the network of params.yaml and write its weights and learning curves."""
    parameters = params.load("train", Parameters)
    train = parameters.train
    if train.arithmetic == "portable":
        arithmetic.portable()
    if processes.must_launch(train.devices, train.num_nodes):
        paths = {"arrays": arrays, "schema": schema, "weights": weights, "curves": curves}
        options = [word for name, path in paths.items() for word in (f"--{name}", path)]
        processes.launch("stages.train", options, train.devices, train.num_nodes, train.threads)
        if os.environ.get("NODE_RANK", "0") == "0":
            remove_scratch()
    elif fit(parameters, arrays, schema, weights, curves) and not processes.launched():
        remove_scratch()


def remove_scratch() -> None:
    """Remove the checkpoints of this training and of earlier ones, unless the inputs have changed meanwhile."""
    with contextlib.suppress(Busy), holding(SCRATCH.with_suffix(".lock"), "training"):
        inputs.confirm()
        shutil.rmtree(SCRATCH, ignore_errors=True)


def fit(parameters: Parameters, arrays: Path, schema: Path, weights: Path, curves: Path) -> bool:
    """Train in one process. The first process writes the results and returns True."""
    import torch

    from stages.training.batches import ArraysModule

    train = parameters.train
    torch.set_num_threads(train.threads)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that slows a small cnn by 3 to 7 %
    on_gpu = devices.on_gpu(train, torch.cuda.device_count())
    learner = build(parameters, schema)
    data = ArraysModule(arrays, train.batch_size, train.seed, overfit=train.debug == "overfit")
    scratch = SCRATCH / inputs_digest(parameters, arrays, schema)
    recorder, callbacks, kept = make_callbacks(train, scratch)
    trainer = make_trainer(train, scratch, on_gpu, callbacks)
    first = trainer.is_global_zero
    with holding(SCRATCH.with_suffix(".lock"), "training") if first else contextlib.nullcontext():
        last = resumable(scratch / "last.ckpt", verbose=first)
        with processes.explain_lost_connection():
            trainer.fit(learner, data, ckpt_path=last, weights_only=True)
        if first:
            state_dict = torch.load(kept, "cpu", weights_only=True)["state_dict"]
            tensors = {name.removeprefix("network."): tensor for name, tensor in state_dict.items()}
            tensors = dict(calibrated(learner.network.spec, tensors, schema, arrays))
            write(learner.network.spec, tensors, recorder.rows, weights, curves)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return bool(first)


def build(parameters: Parameters, schema_path: Path) -> Learner:
    """Build the learner with its network, initialized from the seed or from earlier weights."""
    import torch

    from stages.networks import network
    from stages.schema import Schema
    from stages.training.learner import Learner

    schema = Schema.load(schema_path)
    model, train = parameters.model, parameters.train
    parts = {"encoders": model.encoders, "trunk": model.trunk, "head": model.head}
    try:
        torch.manual_seed(train.seed)
        net = network.Network(schema, network.resolve(schema, parts))
        augment = network.augmenter(schema, train.augment) if train.augment else None
        if model.init_from != "none":
            network.initialize(net, pinned(Path(model.init_from), model.init_sha256), model.name_map)
    except Invalid as error:
        raise Misuse(error.code, f"params.yaml: {error}") from error
    except ValueError as error:
        raise Misuse("params-invalid-network", f"params.yaml: {error}") from error
    if model.freeze_encoders:
        net.encoders.requires_grad_(False)
    metrics = metrics_of(schema.target).metrics(schema.target)
    augment = augment if train.debug == "none" else None
    return Learner(
        net,
        metrics,
        augment,
        seed=train.seed,
        optimizer=train.optimizer,
        learning_rate=train.learning_rate,
        momentum=train.momentum,
        schedule=train.schedule,
        warmup_epochs=train.warmup_epochs,
        l1=train.l1,
        l2=train.l2,
        arithmetic=train.arithmetic,
    )


def inputs_digest(parameters: Parameters, arrays: Path, schema: Path) -> str:
    """A digest of the data, parameters, code, libraries and folder of a training; it names the scratch folder."""
    import lightning
    import torch

    files = [sha256(path) for path in (Path(arrays) / "summary.json", schema)]
    if (snapshot := inputs.current()) is not None:
        files += [json.dumps(snapshot.record, sort_keys=True)]  # the code as it was loaded
    else:
        files += [sha256(path) for path in sorted(Path(__file__).parent.rglob("*.py"))]
    # Lightning's checkpoints hold absolute paths, so a run cannot resume in a folder that has moved
    environment = [torch.__version__, lightning.__version__, str(SCRATCH.resolve())]
    return hashlib.sha256(json.dumps([files, environment, parameters.values()], sort_keys=True).encode()).hexdigest()[
        :16
    ]


def make_callbacks(train: sections.Train, scratch: Path) -> tuple[Recorder, list[Callback], Path]:
    """The recorder of the curves; all callbacks; and the checkpoint whose weights are the result."""
    from stages.training import callbacks

    recorder = callbacks.Recorder()
    chosen: list[Callback] = [recorder]
    kept = "last"
    if train.average:
        chosen.append(callbacks.Averaging(train.average))
    if train.debug == "overfit":
        chosen.append(callbacks.Stop("val_loss", patience=train.epochs, stopping_threshold=0.01))
    elif train.patience:
        kept = "best"
        chosen += [callbacks.Stop("val_loss", patience=train.patience), callbacks.Saver(scratch, kept, "val_loss")]
    chosen.append(callbacks.Saver(scratch, "last"))  # after the others, whose state it stores
    if sys.stdout.isatty():
        chosen.append(callbacks.Bar())
    return recorder, chosen, scratch / f"{kept}.ckpt"


def make_trainer(train: sections.Train, scratch: Path, on_gpu: bool, callbacks: list[Callback]) -> Trainer:
    """Build Lightning's trainer from params."""
    import lightning as L
    from lightning.pytorch import strategies

    from stages.training.callbacks import AtomicCheckpoints

    _quiet()
    several = train.devices * train.num_nodes > 1
    fast: dict[str, Any] = {"limit_train_batches": 3, "limit_val_batches": 2, "max_epochs": 1}
    name = "ddp" if train.strategy == "auto" and several else train.strategy
    strategy = {
        # synchronized buffers would make processes wait for those with one batch less of val
        "ddp": lambda: strategies.DDPStrategy(forward_sync_buffers=False),
        # not tested, for lack of GPUs. Checkpoints must be full, since the weights are read from them
        "fsdp": lambda: strategies.FSDPStrategy(state_dict_type="full"),
    }.get(name, lambda: name)()
    options: dict[str, Any] = {
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
        "plugins": [AtomicCheckpoints()],
        "default_root_dir": scratch,
        "deterministic": "warn",
        "logger": False,
        "enable_progress_bar": sys.stdout.isatty(),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        **(fast if train.debug == "fast" else {}),
    }
    return L.Trainer(**options)


def resumable(last: Path, verbose: bool) -> Path | None:
    """The checkpoint to resume from; None if there is none or it cannot be read."""
    import torch

    if not last.exists():
        return None
    try:
        epochs = torch.load(last, "cpu", weights_only=True, mmap=True)["epoch"] + 1
    except Exception as error:  # torch raises many types for damaged files
        if verbose:
            print(f"starting over: {last} cannot be read ({type(error).__name__})", flush=True)
        return None
    if verbose:
        print(f"resumed after epoch {epochs}", flush=True)
    return last


def calibrated(
    spec: dict[str, Any], state_dict: Mapping[str, Tensor], schema: Path, arrays: Path
) -> Mapping[str, Tensor]:
    """The weights after the head's calibration on the val split, if the head has one."""
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
    spec: dict[str, Any],
    state_dict: Mapping[str, Tensor],
    rows: Sequence[dict[str, float]],
    weights: Path,
    curves: Path,
) -> None:
    """Write the network's weights as safetensors, and a line of the curves for each epoch."""
    from stages.networks import network

    with replacing(weights) as path:
        network.save(path, state_dict, spec)
    with replacing(curves) as path, path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _quiet() -> None:
    """Hide Lightning's hints, but not its warnings."""
    import logging
    import warnings

    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # all processes log the same values already
    hints = "does not have many workers|num_workers|LeafSpec|Checkpoint directory|sync_dist=True"
    warnings.filterwarnings("ignore", message=f".*({hints}).*")
    os.environ.setdefault("NCCL_DEBUG", "WARN")


if __name__ == "__main__":
    command.run(main)
