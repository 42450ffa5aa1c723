"""Learning rate schedules and optimizers by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.training.learner import build_optimizer, learning_rate_factor

OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD", "nesterov": "SGD", "adam": "Adam", "adamw": "AdamW"}


def test_schedules():
    rise = [learning_rate_factor("constant", 100, 10)(step) for step in range(100)]
    assert rise[:10] == pytest.approx(np.arange(1, 11) / 10) and set(rise[10:]) == {1.0}
    cosine = learning_rate_factor("cosine", 100, 0)
    assert (cosine(0), cosine(50), cosine(100)) == pytest.approx((1.0, 0.5, 0.0))
    cycle = [learning_rate_factor("one_cycle", 100, 30)(step) for step in range(101)]
    assert 0.04 < cycle[0] < 0.05 and cycle[29] == 1.0 and cycle[100] == pytest.approx(1e-4)
    assert np.all(np.diff(cycle[:30]) > 0) and np.all(np.diff(cycle[30:]) < 0)


def test_optimizers():
    weight = [torch.nn.Parameter(torch.ones(1))]
    built = {name: build_optimizer(name, weight, 0.1, 0.9, 0.01) for name in OPTIMIZERS}
    assert {name: type(optimizer).__name__ for name, optimizer in built.items()} == OPTIMIZERS
    assert [built[name].defaults["momentum"] for name in ("sgd", "momentum", "nesterov")] == [0, 0.9, 0.9]
    assert [built[name].defaults["nesterov"] for name in ("sgd", "momentum", "nesterov")] == [False, False, True]
    assert {optimizer.defaults["weight_decay"] for optimizer in built.values()} == {0.01}
