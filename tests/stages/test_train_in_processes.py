import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from stages import train
from stages.core.errors import UserError
from stages.training import processes
from tests.support.project import ROOT, environment
from tests.support.training import ARGUMENTS, OPTIONS, curves, outputs, settle, weights

pytestmark = pytest.mark.slow

# sample-keyed augmentation, an odd number of val samples for an even number of processes, a shorter step at the end
CHANGES = {"epochs": 40, "optimizer": "momentum", "learning_rate": 0.02, "average": 0.9, "accumulate": 4}
CHANGES |= {"augment": {"image": {"shift": 0.2, "flip": True}}}
COMMAND = [sys.executable, "-m", "stages.train", *OPTIONS]


def start(folder):
    """Training in two processes, as a command."""
    return subprocess.Popen(
        COMMAND,
        cwd=folder,
        env=environment(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process, begin):
    """The lines of output up to the first that begins with `begin`."""
    lines = []
    while not (lines and lines[-1].startswith(begin)):
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    return lines


def by_rank(process):
    """The training processes of a command, by rank."""
    return {int(child.environ()["LOCAL_RANK"]): child for child in psutil.Process(process.pid).children(recursive=True)}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder and the output of a training in two processes."""
    folder = settle(tmp_path_factory.mktemp("two") / "run", CHANGES | {"devices": 2})
    process = start(folder)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return folder, output, errors


def test_two_processes_train_the_same_model_as_one(two, tmp_path, monkeypatch):
    folder, output, errors = two
    one = settle(tmp_path / "one", CHANGES)
    monkeypatch.chdir(one)
    train.main(*map(one.joinpath, ARGUMENTS))
    alone, shared = weights(one), weights(folder)
    assert alone.keys() == shared.keys()
    assert all(torch.allclose(alone[name], shared[name], atol=1e-5) for name in alone)
    for row, other in zip(curves(one), curves(folder), strict=True):
        assert row == pytest.approx(other, abs=1e-5)
    assert output.count("epoch ") == 40 and errors == ""
    names = {path.name for path in folder.iterdir()}
    assert names == {"arrays", "schema.json", "params.yaml", "dvc.yaml", ".scratch", *ARGUMENTS[2:]}


def test_a_run_ends_if_one_process_is_killed_and_resumes_afterwards(two, tmp_path):
    folder = settle(tmp_path / "run", CHANGES | {"devices": 2})
    process = start(folder)
    read_until(process, "epoch 2/")
    running = by_rank(process)
    assert sorted(running) == [0, 1]
    running[1].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("\n") == 1 and errors.startswith("error: training process 2 of 2 (rank 1, process ")
    assert "died with signal 9 (SIGKILL)" in errors
    assert not psutil.wait_procs(running.values(), timeout=20)[1]
    assert not (folder / "weights.safetensors").exists()
    process = start(folder)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and output.startswith("resumed after epoch "), errors
    assert outputs(folder) == outputs(two[0])


@pytest.fixture
def launched(tmp_path, monkeypatch, capfd):
    """Launch a module with the given source in two processes; return the error and the output."""

    def run(text):
        (tmp_path / "module.py").write_text("import os, sys, time\nrank = int(os.environ['LOCAL_RANK'])\n" + text)
        monkeypatch.chdir(tmp_path)
        with pytest.raises((UserError, SystemExit)) as caught:
            processes.launch("module", ["argument"], 2, 1, 1)
        assert not psutil.Process().children()
        return caught.value, capfd.readouterr()

    return run


FOREVER = "time.sleep(1000)\n"


def test_an_error_of_all_processes_is_printed_once(launched):
    error, printed = launched("print('error: no such file', file=sys.stderr); sys.exit(3)")
    assert isinstance(error, SystemExit) and error.code == 3
    assert printed.err == "error: no such file\n"


def test_an_error_of_one_process_is_printed_with_its_rank(launched):
    error, printed = launched("if rank == 1: raise KeyError('x')\n" + FOREVER)
    assert "training process 2 of 2 (rank 1, process " in str(error) and "exit code 1" in str(error)
    assert printed.err.endswith("KeyError: 'x'\n")


def test_an_error_of_the_first_process_ends_all(launched):
    error, _ = launched("if rank == 0: sys.exit(4)\n" + FOREVER)
    assert isinstance(error, SystemExit) and error.code == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all(launched, rank):
    error, printed = launched(f"if rank == {rank}: os.kill(os.getpid(), 9)\n" + FOREVER)
    assert f"(rank {rank}, process " in str(error) and "signal 9 (SIGKILL), perhaps out of memory" in str(error)
    assert printed.err == ""


def test_a_killed_process_is_named_even_if_the_first_process_failed_because_of_it(launched, monkeypatch):
    monkeypatch.setattr(processes, "POLL_S", 2)  # both have ended at the first poll
    error, _ = launched("time.sleep(1 - rank / 2)\nos.kill(os.getpid(), 9) if rank else sys.exit(1)\n")
    assert "(rank 1, process " in str(error)


def test_processes_end_with_the_command(tmp_path):
    (tmp_path / "module.py").write_text("import os, time; print(os.environ['LOCAL_RANK'], flush=True)\n" + FOREVER)
    code = "from stages.training import processes; processes.launch('module', [], 2, 1, 1)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(ROOT), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        running = by_rank(process)
        process.kill()
    assert sorted(running) == [0, 1]
    assert not psutil.wait_procs(running.values(), timeout=20)[1]


def test_only_the_first_process_prints(tmp_path, monkeypatch, capfd):
    (tmp_path / "module.py").write_text("import os, sys; print(os.environ['LOCAL_RANK'], *sys.argv[1:])")
    monkeypatch.chdir(tmp_path)
    processes.launch("module", [Path("a b"), 1], 3, 1, 1)
    assert capfd.readouterr().out == "0 a b 1\n"


def test_a_lost_connection_is_explained(monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0)
    with pytest.raises(UserError, match="lost the connection to another"), processes.explain_lost_connection():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3")
    with pytest.raises(RuntimeError, match="shapes differ"), processes.explain_lost_connection():
        raise RuntimeError("shapes differ")


def test_several_nodes_need_the_address_of_the_first(monkeypatch):
    monkeypatch.setattr(os, "environ", {"MASTER_ADDR": "host", "NODE_RANK": "0"})
    with pytest.raises(UserError, match="num_nodes is 2: set MASTER_PORT on each node"):
        processes.launch("module", [], 1, 2, 1)


def test_a_process_that_was_started_by_a_launcher_launches_none(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert processes.must_launch(2, 1) and processes.must_launch(1, 2) and not processes.must_launch(1, 1)
    for name in ("LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.setattr(os, "environ", {name: "0"})
        assert not processes.must_launch(2, 1)
