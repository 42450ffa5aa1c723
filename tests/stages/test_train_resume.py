"""Training that is interrupted, edited or stopped: what it resumes, and what it writes then."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile

import pytest

from stages import train
from stages.core.errors import UserError
from stages.core.locks import holding
from stages.settings import params
from stages.training.callbacks import Recorder
from stages.training.learner import Learner
from tests.support.project import ROOT, environment
from tests.support.training import OPTIONS, curves, outputs, settle, val_loss

pytestmark = pytest.mark.slow

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


def interrupt(monkeypatch, after):
    """Make the next training fail in the epoch after `after` epochs with a checkpoint."""

    def fail(recorder, trainer, learner):
        if trainer.current_epoch == after:
            raise KeyError("interrupted")
        original(recorder, trainer, learner)

    original = Recorder.on_train_epoch_start
    monkeypatch.setattr(Recorder, "on_train_epoch_start", fail)


def test_a_killed_run_resumes_and_writes_the_bytes_of_an_uninterrupted_one(tmp_path, trained):
    model = {"encoders": {"image": {"name": "cnn", "width": 4, "dropout": 0.2}}}
    whole = trained("whole", EVERYTHING, **model)
    folder = settle(tmp_path / "killed", EVERYTHING, model)
    command = [sys.executable, "-m", "stages.train", *OPTIONS]
    with subprocess.Popen(command, cwd=folder, env=environment(ROOT), stdout=subprocess.PIPE, text=True) as first:
        while not first.stdout.readline().startswith("epoch 3/"):
            assert first.poll() is None
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not (folder / "weights.safetensors").exists()
    second = subprocess.run(command, cwd=folder, env=environment(ROOT), capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    resumed = int(second.stdout.splitlines()[0].removeprefix("resumed after epoch "))
    assert 2 <= resumed < 40
    assert second.stdout.count("\nepoch ") == 40 - resumed
    assert outputs(folder) == outputs(whole)
    assert not (folder / train.SCRATCH).exists()


@pytest.mark.parametrize("what", ["learning rate", "pictures"])
def test_an_edit_during_training_fails_the_run_which_resumes_once_it_is_undone(tmp_path, trained, what):
    model = {"encoders": {"image": {"name": "cnn", "width": 4}}}
    edited = EVERYTHING | {"epochs": 12}
    whole = trained("whole", edited, **model)
    folder = settle(tmp_path / "edited", edited, model)
    path = folder / "params.yaml" if what == "learning rate" else folder / "arrays/train/00.npy"
    before = path.read_bytes()
    command = [sys.executable, "-m", "stages.train", *OPTIONS]
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
    message = (
        "train.learning_rate in params.yaml was 0.02 and is 0.5 now" if what == "learning rate" else f"{path.name} "
    )
    assert line.startswith("error: ") and message in line
    path.write_bytes(before)
    second = subprocess.run(command, cwd=folder, env=environment(ROOT), capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    resumed = int(second.stdout.splitlines()[0].removeprefix("resumed after epoch "))
    assert resumed == 12 if what == "learning rate" else 2 <= resumed < 12
    assert outputs(folder) == outputs(whole)
    assert not (folder / train.SCRATCH).exists()


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_does_not_resume_with_other_inputs(trained, monkeypatch, capfd, after):
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        interrupt(patch, after)
        trained(changes={"epochs": 3})
    capfd.readouterr()
    folder = trained(changes={"epochs": 3, "learning_rate": 0.01})
    assert "resumed" not in capfd.readouterr().out
    assert outputs(folder) == outputs(trained("fresh", {"epochs": 3, "learning_rate": 0.01}))


def test_a_run_that_was_killed_before_it_wrote_results_does_not_train_again(trained, monkeypatch, capfd):
    changes = {"epochs": 4, "average": 0.5}
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(train, "write", lambda *arguments: {}["interrupted"])
        trained(changes=changes)
    capfd.readouterr()
    folder = trained(changes=changes)
    assert capfd.readouterr().out == "resumed after epoch 4\n"
    assert outputs(folder) == outputs(trained("fresh", changes))


def test_a_run_that_stopped_early_does_not_train_on(trained, monkeypatch, capfd):
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


def test_a_truncated_checkpoint_starts_the_training_over(trained, monkeypatch, capfd):
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        interrupt(patch, 2)
        trained(changes={"epochs": 3})
    (last,) = train.SCRATCH.glob("*/last.ckpt")
    last.write_bytes(last.read_bytes()[:-1000])
    capfd.readouterr()
    folder = trained(changes={"epochs": 3})
    assert capfd.readouterr().out.startswith("starting over: ")
    assert outputs(folder) == outputs(trained("fresh", {"epochs": 3}))


def test_checkpoints_do_not_use_the_temporary_folder(trained, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/missing")
    trained()


def test_sigterm_ends_a_training_with_its_default_action(trained, monkeypatch):
    def step(*arguments):
        seen.add(signal.getsignal(signal.SIGTERM))
        return original(*arguments)

    seen, original, before = set(), Learner.training_step, signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Learner, "training_step", step)
    trained()
    assert seen == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_training_in_the_same_folder_is_refused(trained, tmp_path):
    with (
        holding(settle(tmp_path / "run") / ".scratch/train.lock", "training"),
        pytest.raises(UserError, match="at work"),
    ):
        trained()
