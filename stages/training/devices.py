"""The devices of training: CPU or GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.core.errors import Misuse

if TYPE_CHECKING:
    from stages.settings.sections import Train


def on_gpu(train: Train, gpus: int) -> bool:
    """Whether training uses GPUs.

    Raises:
        Misuse: this machine or Lightning does not support what params set.
    """
    if train.accelerator == "gpu" and not gpus:
        raise Misuse(
            "train-no-gpu", "params.yaml: train.accelerator is gpu, but torch finds no GPU here: set cpu or auto"
        )
    used = train.accelerator != "cpu" and gpus > 0
    if used and train.devices > gpus:
        raise Misuse(
            "train-few-gpus",
            f"params.yaml: train.devices is {train.devices}, but torch finds {gpus} GPUs here: lower it",
        )
    if not used and train.precision == "16-mixed":
        raise Misuse("train-no-gpu", "params.yaml: train.precision 16-mixed needs a GPU: set 32 or bf16-mixed")
    if train.strategy == "fsdp":
        if not used:
            raise Misuse("train-no-gpu", "params.yaml: train.strategy fsdp needs GPUs: set ddp or auto")
        if train.l1 or train.clip_norm or train.average:
            raise Misuse(
                "train-fsdp-option",
                "params.yaml: train.strategy fsdp does not support l1, clip_norm and average: set them to 0 or use ddp",
            )
    return used
