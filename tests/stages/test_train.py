"""What each parameter of training does, and what a training writes."""

from __future__ import annotations

import contextlib

import pytest
import torch

from stages import train
from stages.core.errors import UserError
from stages.core.files import sha256
from stages.settings import params
from stages.tables.arrays import open_split
from stages.training.batches import Batches
from stages.training.learner import Learner
from tests.support.failing import failing
from tests.support.training import ARGUMENTS, curves, outputs, settle, val_loss, weights


def test_averaged_weights_are_the_moving_average_over_all_steps(trained, monkeypatch):
    steps = []

    def keep(learner, *_):
        steps.append({name: weight.detach().clone() for name, weight in learner.network.state_dict().items()})

    monkeypatch.setattr(Learner, "on_train_batch_end", keep)
    stored = weights(trained(changes={"average": 0.6, "learning_rate": 0.1}))
    assert len(steps) == 12
    for name, averaged in stored.items():
        expected = steps[0][name]
        for n, step in enumerate(steps[1:], start=1):
            decay = min(0.6, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * step[name]
        assert torch.allclose(averaged, expected, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"average": 0.9}, {"average": 0.9, "patience": 3, "epochs": 3}])
def test_the_stored_weights_have_the_loss_that_the_curves_show(trained, changes):
    folder = trained(changes=changes, encoders={"image": {"name": "cnn", "width": 4}})
    rows = curves(folder)
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert val_loss(folder) == pytest.approx(min(row["val_loss"] for row in rows), abs=1e-5)
    assert set(rows[0]) >= {"learning_rate", "train_loss", "val_loss", "val_accuracy", "val_auroc"}


def test_training_learns(trained, capfd):
    folder = trained(changes={"epochs": 12})
    assert curves(folder)[-1]["val_accuracy"] > 0.9
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 12 and all("samples/s" in line for line in lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"batch_size": 16},
        {"optimizer": "sgd"},
        {"optimizer": "momentum"},
        {"optimizer": "nesterov"},
        {"optimizer": "adam"},
        {"learning_rate": 0.001},
        {"schedule": "constant"},
        {"schedule": "cosine"},
        {"warmup_epochs": 0},
        {"l1": 0.01},
        {"l2": 0.5},
        {"clip_norm": 0.01},
        {"accumulate": 2},
        {"augment": {"image": {"shift": 0.1}}},
        {"average": 0.9},
        {"precision": "bf16-mixed"},
        {"model": {"head": {"label_smoothing": 0.1}}},
        {"model": {"head": {"class_weights": "balanced"}}},
        {"model": {"trunk": {"dropout": 0.5}}},
        {"model": {"encoders": {"image": {"name": "mlp", "hidden": [16], "dropout": 0.5}}}},
    ],
    ids=str,
)
def test_every_parameter_changes_the_weights(plain, trained, changes):
    model = changes.get("model", {})
    changed = weights(trained("changed", {name: changes[name] for name in changes if name != "model"}, **model))
    assert any(not torch.equal(plain[name], changed[name]) for name in plain)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights of a training with the parameters of `settle`."""
    folder = settle(tmp_path_factory.mktemp("plain") / "run")
    with contextlib.chdir(folder):
        train.main(*map(folder.joinpath, ARGUMENTS))
    return weights(folder)


def test_accumulated_batches_equal_one_larger_batch(trained):
    plain = {"optimizer": "momentum", "learning_rate": 0.1}
    folders = (
        trained("larger", plain | {"batch_size": 40}),
        trained("both", plain | {"batch_size": 20, "accumulate": 2}),
    )
    for name, weight in weights(folders[0]).items():
        assert torch.allclose(weight, weights(folders[1])[name], atol=1e-6)


SGD = {"optimizer": "sgd", "schedule": "constant", "warmup_epochs": 0, "l2": 0.0, "learning_rate": 0.1}


@pytest.mark.parametrize(("accumulate", "steps"), [(4, [4, 2]), (5, [5, 1]), (9, [6])])
def test_a_step_of_fewer_batches_at_the_end_of_an_epoch_uses_their_mean_gradient(trained, accumulate, steps):
    """200 rows are six batches of 32. The last step of an epoch may have fewer batches."""
    folder = trained("run", SGD | {"accumulate": accumulate, "epochs": 2})
    declared = params.load("train", train.Parameters)
    net = train.build(declared, folder / "schema.json").network
    optimizer = torch.optim.SGD(net.parameters(), SGD["learning_rate"])
    batches = Batches(open_split(folder / "arrays", "train"), 32, seed=declared.train.seed)
    for epoch in range(2):
        batches.set_epoch(epoch)
        remaining = iter(batches)
        for count in steps:
            blocks, target, _ = zip(*(next(remaining) for _ in range(count)), strict=True)
            optimizer.zero_grad()
            net.head.loss(net([torch.cat([block for (block,) in blocks])]), torch.cat(target)).backward()
            optimizer.step()
    assert next(remaining, None) is None
    for name, weight in net.state_dict().items():
        assert torch.allclose(weight, weights(folder)[name], atol=1e-6), name


def test_a_batch_larger_than_the_split_equals_the_split(trained):
    assert outputs(trained("all", {"batch_size": 200})) == outputs(trained("more", {"batch_size": 1000}))


def test_l1_and_l2_shrink_weights_but_are_not_in_the_curves(trained):
    def size(folder):
        return sum(float(tensor.abs().sum()) for tensor in weights(folder).values())

    changes = {"epochs": 4, "l2": 0.0}
    plain = trained("plain", changes)
    for penalty in ({"l1": 0.02}, {"l2": 5.0}):
        folder = trained(next(iter(penalty)), changes | penalty)
        assert size(folder) < 0.95 * size(plain)
        assert curves(folder)[0]["train_loss"] < curves(plain)[0]["train_loss"] + 0.1


def test_a_frozen_encoder_does_not_change(trained):
    encoder = {"encoders": {"image": {"name": "cnn", "width": 4}}}
    earlier = trained("earlier", **encoder)
    model = encoder | {"init_from": "../earlier/weights.safetensors"}
    model["init_sha256"] = sha256(earlier / "weights.safetensors")
    frozen = weights(trained("frozen", **model, freeze_encoders=True))
    for name, before in weights(earlier).items():
        assert torch.equal(before, frozen[name]) == name.startswith("encoders."), name
    with failing(
        UserError,
        "train-weights-changed",
        "model.init_sha256",
        "../earlier/weights.safetensors",
    ):
        trained("other", **model | {"init_sha256": "0" * 64})
    with failing(UserError, "train-weights-missing", "model.init_from"):
        trained("other", **model | {"init_from": "../missing.safetensors"})


def test_earlier_weights_are_loaded_by_a_name_map(trained):
    earlier = trained("earlier")
    model = {"init_from": "../earlier/weights.safetensors", "init_sha256": sha256(earlier / "weights.safetensors")}
    changes = {"learning_rate": 1e-9, "l2": 0.0}
    begun = weights(trained("begun", changes, **model, name_map={"encoders": "encoders"}))
    before = weights(earlier)
    assert torch.allclose(begun["encoders.0.layers.0.weight"], before["encoders.0.layers.0.weight"], atol=1e-6)
    assert not torch.allclose(begun["head.linear.weight"], before["head.linear.weight"], atol=1e-3)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30, "optimizer": "sgd", "epochs": 3}, {"l2": 1e38}])
def test_a_training_that_diverges_is_an_error_and_writes_nothing(trained, changes, tmp_path):
    with failing(UserError, "train-diverged", "train.learning_rate"):
        trained(changes=changes)
    assert not [name for name in ARGUMENTS[2:] if (tmp_path / "run" / name).exists()]


def test_debug_fast_trains_three_batches_of_one_epoch(trained, monkeypatch):
    seen = []
    original = Learner.training_step
    monkeypatch.setattr(
        Learner, "training_step", lambda *arguments: seen.append(arguments[1][2]) or original(*arguments)
    )
    assert len(curves(trained(changes={"debug": "fast", "epochs": 9}))) == 1
    assert len(seen) == 3


def test_debug_overfit_memorizes_one_batch(trained, monkeypatch):
    seen = []
    original = Learner.training_step
    monkeypatch.setattr(
        Learner, "training_step", lambda *arguments: seen.append(set(arguments[1][2])) or original(*arguments)
    )
    augment = {"image": {"shift": 1.0, "erase": 1.0}}
    rows = curves(
        trained(changes={"debug": "overfit", "epochs": 90, "learning_rate": 0.02, "augment": augment, "patience": 1})
    )
    assert 1 < len(rows) < 90
    assert rows[-1]["val_loss"] < 0.01 < rows[-2]["val_loss"]
    assert len(seen[0]) == 32 and all(batch == seen[0] for batch in seen)
