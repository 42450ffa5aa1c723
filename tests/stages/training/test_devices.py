"""Devices of training: what this machine or Lightning does not support is an error."""

from __future__ import annotations

import pytest

from stages.core.errors import UserError
from stages.settings import params
from stages.training import devices
from tests.support.failing import failing
from tests.support.training import settle

NAMES = ("cpu", "gpu", "auto")


@pytest.mark.parametrize(
    ("changes", "gpus", "expected"),
    [
        ({"accelerator": "gpu"}, 0, ("train-no-gpu",)),
        ({"accelerator": "auto", "devices": 4}, 2, ("train-few-gpus", "2")),
        ({"precision": "16-mixed"}, 0, ("train-no-gpu",)),
        ({"precision": "16-mixed", "accelerator": "cpu"}, 1, ("train-no-gpu",)),
        ({"strategy": "fsdp"}, 0, ("train-no-gpu",)),
        ({"strategy": "fsdp", "accelerator": "gpu", "clip_norm": 1.0}, 1, ("train-fsdp-option",)),
    ],
)
def test_settings_that_this_machine_does_not_support_are_errors(tmp_path, changes, gpus, expected):
    section = params.parse(settle(tmp_path / "run", changes) / "params.yaml").train
    with failing(UserError, *expected):
        devices.on_gpu(section, gpus)


def test_gpus_are_used_if_there_are_any(tmp_path):
    folders = {name: settle(tmp_path / name, {"accelerator": name}) for name in NAMES}
    sections = {name: params.parse(folder / "params.yaml").train for name, folder in folders.items()}
    assert [devices.on_gpu(sections[name], 1) for name in NAMES] == [False, True, True]
    assert not devices.on_gpu(sections["auto"], 0)
