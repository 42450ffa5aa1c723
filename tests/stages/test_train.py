import contextlib
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages import train
from stages.core.command import holding
from stages.core.errors import UserError
from stages.networks import network
from stages.settings import params
from stages.tables.arrays import open_split
from stages.tables.table import sha256
from stages.training import devices
from stages.training.batches import ArraysModule, Batches
from stages.training.callbacks import Recorder
from stages.training.learner import Learner, build_optimizer, learning_rate_factor
from tests.support.project import ROOT, environment
from tests.support.training import ARGUMENTS, MLP, SCHEMA, SHORT, curves, make_data, outputs, settle, weights

MLP |= {"head": {}, "trunk": {}, "init_from": "none", "freeze_encoders": False}
SHORT |= {"optimizer": "adamw", "warmup_epochs": 1, "augment": {}, "average": 0.0, "patience": 0, "clip_norm": 0.0}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train in the folder `name`, made where it is missing, and return it."""

    def run(name="run", changes=None, **model):
        folder = settle(tmp_path / name, changes, model)
        monkeypatch.chdir(folder)
        train.main(*map(folder.joinpath, ARGUMENTS))
        return folder

    return run


def val_loss(folder):
    """Of the stored weights, measured without Lightning."""
    val, net = open_split(folder / "arrays", "val"), network.load(folder / "weights.safetensors", SCHEMA)
    with torch.no_grad():
        return float(net.head.loss(net([torch.from_numpy(np.array(val.blocks[0]))]), torch.from_numpy(val.target)))


def interrupt(monkeypatch, after):
    """Make the next training end in the middle, after `after` epochs with a checkpoint."""

    def fail(recorder, trainer, learner):
        if trainer.current_epoch == after:
            raise KeyError("interrupted")
        original(recorder, trainer, learner)

    original = Recorder.on_train_epoch_start
    monkeypatch.setattr(Recorder, "on_train_epoch_start", fail)


EVERYTHING = {
    "epochs": 40,
    "optimizer": "nesterov",
    "learning_rate": 0.02,
    "schedule": "one_cycle",
    "average": 0.95,
    "patience": 40,
    "accumulate": 2,
    "augment": {"image": {"shift": 0.2, "rotate": 10.0, "flip": True, "brightness": 0.1, "erase": 0.3}},
}


def test_a_killed_run_goes_on_to_the_bytes_of_an_undisturbed_one(tmp_path, trained):
    model = {"encoders": {"image": {"name": "cnn", "width": 4, "dropout": 0.2}}}
    whole = trained("whole", EVERYTHING, **model)
    folder = settle(tmp_path / "killed", EVERYTHING, model)
    command = [sys.executable, "-m", "stages.train", *ARGUMENTS]
    with subprocess.Popen(command, cwd=folder, env=environment(ROOT), stdout=subprocess.PIPE, text=True) as first:
        while not first.stdout.readline().startswith("epoch 3/"):
            assert first.poll() is None
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not (folder / "weights.safetensors").exists()
    said = subprocess.run(command, cwd=folder, env=environment(ROOT), capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    resumed = int(said.stdout.splitlines()[0].removeprefix("resumed after epoch "))
    assert 2 <= resumed < 40
    assert said.stdout.count("\nepoch ") == 40 - resumed
    assert outputs(folder) == outputs(whole)
    assert not (folder / train.SCRATCH).exists()


@pytest.mark.parametrize("what", ["learning rate", "pictures"])
def test_an_edit_while_it_trains_fails_it_and_costs_nothing_once_put_back(tmp_path, trained, what):
    model = {"encoders": {"image": {"name": "cnn", "width": 4}}}
    edited = EVERYTHING | {"epochs": 12}
    whole = trained("whole", edited, **model)
    folder = settle(tmp_path / "edited", edited, model)
    path = folder / "params.yaml" if what == "learning rate" else folder / "arrays/train/00.npy"
    before = path.read_bytes()
    command = [sys.executable, "-m", "stages.train", *ARGUMENTS]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment(ROOT), **streams) as first:
        while not first.stdout.readline().startswith("epoch 3/"):
            assert first.poll() is None
        if what == "learning rate":
            params.edit({"train": {"learning_rate": 0.5}}, path)
        else:
            path.write_bytes(before[:-5000] + bytes(5000))
        _, errors = first.communicate(timeout=300)
    assert first.returncode == 1
    (line,) = errors.splitlines()
    named = "train.learning_rate in params.yaml was 0.02 and is 0.5 now" if what == "learning rate" else f"{path.name} "
    assert line.startswith("error: ") and named in line
    path.write_bytes(before)
    done = subprocess.run(command, cwd=folder, env=environment(ROOT), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    resumed = int(done.stdout.splitlines()[0].removeprefix("resumed after epoch "))
    assert resumed == 12 if what == "learning rate" else 2 <= resumed < 12
    assert outputs(folder) == outputs(whole)
    assert not (folder / train.SCRATCH).exists()


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_goes_on_only_with_its_own_inputs(trained, monkeypatch, capfd, after):
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        interrupt(patch, after)
        trained(changes={"epochs": 3})
    capfd.readouterr()
    folder = trained(changes={"epochs": 3, "learning_rate": 0.01})
    assert "resumed" not in capfd.readouterr().out
    assert outputs(folder) == outputs(trained("fresh", {"epochs": 3, "learning_rate": 0.01}))


def test_a_run_that_was_killed_before_it_wrote_does_not_train_again(trained, monkeypatch, capfd):
    changes = {"epochs": 4, "average": 0.5}
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(train, "write", lambda *arguments: {}["interrupted"])
        trained(changes=changes)
    capfd.readouterr()
    folder = trained(changes=changes)
    assert capfd.readouterr().out == "resumed after epoch 4\n"
    assert outputs(folder) == outputs(trained("fresh", changes))


def test_a_run_that_had_stopped_early_stays_stopped(trained, monkeypatch, capfd):
    changes = {"epochs": 60, "learning_rate": 0.1, "schedule": "constant", "patience": 1}
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(train, "write", lambda *arguments: {}["interrupted"])
        trained(changes=changes)
    capfd.readouterr()
    folder = trained(changes=changes)
    assert capfd.readouterr().out.count("\n") == 1
    rows = curves(folder)
    assert 1 < len(rows) < 60
    assert outputs(folder) == outputs(trained("fresh", changes))
    assert val_loss(folder) == pytest.approx(min(row["val_loss"] for row in rows), abs=1e-5)
    assert rows[-1]["val_loss"] > min(row["val_loss"] for row in rows)


def test_a_truncated_checkpoint_means_starting_over(trained, monkeypatch, capfd):
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        interrupt(patch, 2)
        trained(changes={"epochs": 3})
    (last,) = train.SCRATCH.glob("*/last.ckpt")
    last.write_bytes(last.read_bytes()[:-1000])
    capfd.readouterr()
    folder = trained(changes={"epochs": 3})
    assert capfd.readouterr().out.startswith("starting over: ")
    assert outputs(folder) == outputs(trained("fresh", {"epochs": 3}))


def test_checkpoints_are_never_on_another_disk(trained, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/missing")
    trained()


def test_a_training_that_is_asked_to_end_does_not_exit_with_0(trained, monkeypatch):
    def step(*arguments):
        seen.add(signal.getsignal(signal.SIGTERM))
        return original(*arguments)

    seen, original, before = set(), Learner.training_step, signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Learner, "training_step", step)
    trained()
    assert seen == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGTERM) == before


def test_averaged_weights_are_the_moving_average_of_all_steps(trained, monkeypatch):
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
def test_every_parameter_acts(plain, trained, changes):
    model = changes.get("model", {})
    changed = weights(trained("changed", {name: changes[name] for name in changes if name != "model"}, **model))
    assert any(not torch.equal(plain[name], changed[name]) for name in plain)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights that come of the project's parameters as `settle` writes them."""
    folder = settle(tmp_path_factory.mktemp("plain") / "run")
    with contextlib.chdir(folder):
        train.main(*map(folder.joinpath, ARGUMENTS))
    return weights(folder)


def test_accumulating_batches_is_one_larger_batch(trained):
    plain = {"optimizer": "momentum", "learning_rate": 0.1}
    folders = (
        trained("larger", plain | {"batch_size": 40}),
        trained("both", plain | {"batch_size": 20, "accumulate": 2}),
    )
    for name, one in weights(folders[0]).items():
        assert torch.allclose(one, weights(folders[1])[name], atol=1e-6)


SGD = {"optimizer": "sgd", "schedule": "constant", "warmup_epochs": 0, "l2": 0.0, "learning_rate": 0.1}


@pytest.mark.parametrize(("accumulate", "steps"), [(4, [4, 2]), (5, [5, 1]), (9, [6])])
def test_a_step_of_fewer_batches_at_the_end_of_an_epoch_is_as_long_as_any(trained, accumulate, steps):
    """200 rows are six batches of 32: each step follows the mean over its own samples, the last one too."""
    folder = trained("run", SGD | {"accumulate": accumulate, "epochs": 2})
    declared = params.load("train")
    net = train.build(declared, folder / "schema.json").network
    optimizer = torch.optim.SGD(net.parameters(), SGD["learning_rate"])
    batches = Batches(open_split(folder / "arrays", "train"), 32, seed=declared.train.seed)
    for epoch in range(2):
        batches.set_epoch(epoch)
        each = iter(batches)
        for count in steps:
            blocks, target, _ = zip(*(next(each) for _ in range(count)), strict=True)
            optimizer.zero_grad()
            net.head.loss(net([torch.cat([block for (block,) in blocks])]), torch.cat(target)).backward()
            optimizer.step()
    assert next(each, None) is None
    for name, weight in net.state_dict().items():
        assert torch.allclose(weight, weights(folder)[name], atol=1e-6), name


def test_a_batch_larger_than_the_split_is_the_split(trained):
    assert outputs(trained("all", {"batch_size": 200})) == outputs(trained("more", {"batch_size": 1000}))


def test_l1_and_l2_shrink_weights_but_stay_out_of_the_curves(trained):
    def size(folder):
        return sum(float(tensor.abs().sum()) for tensor in weights(folder).values())

    changes = {"epochs": 4, "l2": 0.0}
    plain = trained("plain", changes)
    for penalty in ({"l1": 0.02}, {"l2": 5.0}):
        folder = trained(next(iter(penalty)), changes | penalty)
        assert size(folder) < 0.95 * size(plain)
        assert curves(folder)[0]["train_loss"] < curves(plain)[0]["train_loss"] + 0.1


def test_a_frozen_encoder_keeps_every_byte(trained):
    encoder = {"encoders": {"image": {"name": "cnn", "width": 4}}}
    earlier = trained("earlier", **encoder)
    model = encoder | {"init_from": "../earlier/weights.safetensors"}
    model["init_sha256"] = sha256(earlier / "weights.safetensors")
    frozen = weights(trained("frozen", **model, freeze_encoders=True))
    for name, before in weights(earlier).items():
        assert torch.equal(before, frozen[name]) == name.startswith("encoders."), name
    with pytest.raises(UserError, match=r"init_sha256.*write that"):
        trained("other", **model | {"init_sha256": "0" * 64})
    with pytest.raises(UserError, match="there is no file"):
        trained("other", **model | {"init_from": "../missing.safetensors"})


def test_weights_of_others_come_in_by_a_name_map(trained):
    earlier = trained("earlier")
    model = {"init_from": "../earlier/weights.safetensors", "init_sha256": sha256(earlier / "weights.safetensors")}
    changes = {"learning_rate": 1e-9, "l2": 0.0}
    begun = weights(trained("begun", changes, **model, name_map={"encoders": "encoders"}))
    before = weights(earlier)
    assert torch.allclose(begun["encoders.0.layers.0.weight"], before["encoders.0.layers.0.weight"], atol=1e-6)
    assert not torch.allclose(begun["head.linear.weight"], before["head.linear.weight"], atol=1e-3)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30, "optimizer": "sgd", "epochs": 3}, {"l2": 1e38}])
def test_a_training_that_diverges_says_so_and_writes_nothing(trained, changes, tmp_path):
    with pytest.raises(UserError, match=r"diverged in epoch \d .*lower train.learning_rate"):
        trained(changes=changes)
    assert not [name for name in ARGUMENTS[2:] if (tmp_path / "run" / name).exists()]


def test_fast_is_three_batches_of_one_epoch(trained, monkeypatch):
    seen = []
    original = Learner.training_step
    monkeypatch.setattr(Learner, "training_step", lambda *all: seen.append(all[1][2]) or original(*all))
    assert len(curves(trained(changes={"debug": "fast", "epochs": 9}))) == 1
    assert len(seen) == 3


def test_overfit_learns_one_batch_by_heart(trained, monkeypatch):
    seen = []
    original = Learner.training_step
    monkeypatch.setattr(Learner, "training_step", lambda *all: seen.append(set(all[1][2])) or original(*all))
    augment = {"image": {"shift": 1.0, "erase": 1.0}}
    rows = curves(
        trained(changes={"debug": "overfit", "epochs": 90, "learning_rate": 0.02, "augment": augment, "patience": 1})
    )
    assert 1 < len(rows) < 90
    assert rows[-1]["val_loss"] < 0.01 < rows[-2]["val_loss"]
    assert len(seen[0]) == 32 and all(batch == seen[0] for batch in seen)


@pytest.mark.parametrize(
    ("changes", "gpus", "message"),
    [
        ({"accelerator": "gpu"}, 0, "finds no GPU"),
        ({"accelerator": "auto", "devices": 4}, 2, "finds 2 GPUs"),
        ({"precision": "16-mixed"}, 0, "needs a GPU"),
        ({"precision": "16-mixed", "accelerator": "cpu"}, 1, "needs a GPU"),
        ({"strategy": "fsdp"}, 0, "needs GPUs"),
        ({"strategy": "fsdp", "accelerator": "gpu", "clip_norm": 1.0}, 1, "goes without"),
    ],
)
def test_what_cannot_be_done_here_is_refused(tmp_path, changes, gpus, message):
    said = params.parse(settle(tmp_path / "run", changes) / "params.yaml").train
    with pytest.raises(UserError, match=message):
        devices.on_gpu(said, gpus)


def test_gpus_are_used_where_there_are_any(tmp_path):
    said = {name: params.parse(settle(tmp_path / name, {"accelerator": name}) / "params.yaml").train for name in NAMES}
    assert [devices.on_gpu(said[name], 1) for name in NAMES] == [False, True, True]
    assert not devices.on_gpu(said["auto"], 0)


NAMES = ("cpu", "gpu", "auto")


def test_two_trainings_do_not_mix(trained, tmp_path):
    with (
        holding(settle(tmp_path / "run") / ".scratch/train.lock", "training"),
        pytest.raises(UserError, match="at work"),
    ):
        trained()


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 37])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_evaluation_sees_each_sample_once(tmp_path, rows, world):
    make_data(tmp_path, {"val": rows})
    split = open_split(tmp_path / "arrays", "val")
    shares = [Batches(split, 6, seed=None, rank=rank, world=world) for rank in range(world)]
    seen = [sample for share in shares for _, _, samples in share for sample in samples]
    assert sorted(seen) == list(range(rows))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_processes_share_the_batches_of_one(tmp_path):
    make_data(tmp_path, {"train": 50})
    split = open_split(tmp_path / "arrays", "train")
    one, *two = (Batches(split, 8, seed=3, rank=rank, world=world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    orders = []
    for epoch in range(2):
        for share in (one, *two):
            share.set_epoch(epoch)
        batches = [list(samples) for _, _, samples in one]
        halves = [[list(samples) for _, _, samples in share] for share in two]
        assert len(batches) == len(halves[0]) == len(halves[1]) == len(one) == 6
        assert all(sorted(a) == sorted(b + c) for a, b, c in zip(batches, *halves, strict=True))
        assert len({sample for batch in batches for sample in batch}) == 48
        orders.append(batches)
    assert orders[0] != orders[1]


def test_a_batch_holds_the_samples_that_it_names(tmp_path):
    make_data(tmp_path, {"train": 50})
    split = open_split(tmp_path / "arrays", "train")
    for (block,), target, samples in Batches(split, 8, seed=0):
        assert np.array_equal(block, split.blocks[0][samples]) and np.array_equal(target, split.target[samples])


def test_a_split_must_do_for_all_processes(tmp_path):
    make_data(tmp_path, {"train": 50, "val": 3})
    data = ArraysModule(tmp_path / "arrays", 8, 0)
    data.trainer = SimpleNamespace(world_size=4, global_rank=0)
    assert len(data.train_dataloader()) == 6
    with pytest.raises(UserError, match="val split has 3 samples, too few for 4"):
        data.val_dataloader()


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


OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD", "nesterov": "SGD", "adam": "Adam", "adamw": "AdamW"}
