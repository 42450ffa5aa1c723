"""Devices of training: what this machine or Lightning does not support is an error."""

from __future__ import annotations

import pytest

from stages.core.errors import UserError
from stages.settings import params
from stages.training import devices
from tests.support.training import settle

NAMES = ("cpu", "gpu", "auto")


@pytest.mark.parametrize(
    ("changes", "gpus", "message"),
    [
        ({"accelerator": "gpu"}, 0, "finds no GPU"),
        ({"accelerator": "auto", "devices": 4}, 2, "finds 2 GPUs"),
        ({"precision": "16-mixed"}, 0, "needs a GPU"),
        ({"precision": "16-mixed", "accelerator": "cpu"}, 1, "needs a GPU"),
        ({"strategy": "fsdp"}, 0, "needs GPUs"),
        ({"strategy": "fsdp", "accelerator": "gpu", "clip_norm": 1.0}, 1, "does not support"),
    ],
)
def test_settings_that_this_machine_does_not_support_are_errors(tmp_path, changes, gpus, message):
    section = params.parse(settle(tmp_path / "run", changes) / "params.yaml").train
    with pytest.raises(UserError, match=message):
        devices.on_gpu(section, gpus)


def test_gpus_are_used_if_there_are_any(tmp_path):
    folders = {name: settle(tmp_path / name, {"accelerator": name}) for name in NAMES}
    sections = {name: params.parse(folder / "params.yaml").train for name, folder in folders.items()}
    assert [devices.on_gpu(sections[name], 1) for name in NAMES] == [False, True, True]
    assert not devices.on_gpu(sections["auto"], 0)
