"""The whole pipeline in clones of the project, through its own commands and the real Triton."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.line import (
    FAST,
    NO_YARDSTICKS,
    ask_grpc,
    ask_http,
    hashes,
    kill_group,
    picture,
    read_until,
    relatives,
    release,
    serving,
    wait_gone,
)
from tests.support.project import ROOT, environment


def test_a_run_passes_and_a_second_one_runs_no_stage(finished):
    output = (finished.folder / ".output").read_text()
    assert re.search(r"pass: release [0-9a-f]{12}", output)
    again = finished.millrace("run")
    assert "Running stage" not in again
    assert "pass: release" in again
    assert "up to date" in finished.run("dvc", "status")


def test_the_release_is_the_digest_of_its_manifest(finished):
    digest = hashlib.sha256((finished.folder / "models/manifest.json").read_bytes()).hexdigest()[:12]
    assert f"pass: release {digest}" in (finished.folder / ".output").read_text()
    assert (finished.folder / f"models/repository/digits_{digest}_network/1/model.onnx").exists()


def test_no_path_of_the_machine_is_in_any_output(finished):
    for path in (finished.folder / "models").rglob("*"):
        if path.is_file():
            assert str(finished.folder).encode() not in path.read_bytes(), path
            assert b"site-packages" not in path.read_bytes(), path


def test_prefect_and_dvc_finish_each_others_runs_with_the_same_outputs(finished, fresh):
    flow = fresh.start(sys.executable, "-m", "flows.cli", "run", "--flow")
    read_until(flow, "prepared ")
    kill_group(flow)
    wait_gone(fresh)
    repro = fresh.start("dvc", "repro")
    read_until(repro, "Running stage 'export'")
    kill_group(repro)
    wait_gone(fresh)
    fresh.millrace("run", "--flow")
    assert hashes(fresh) == hashes(finished)
    assert "Running stage" not in fresh.millrace("run")


def test_a_run_killed_at_random_moments_ends_with_the_same_outputs(finished, fresh):
    """A few times: `python -m benchmarks kills` does it often."""
    chance = random.Random(0)
    for _ in range(4):
        run = fresh.start(sys.executable, "-m", "flows.cli", "run")
        try:
            run.wait(timeout=chance.uniform(0.5, 8))
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        wait_gone(fresh)
    fresh.millrace("run")
    assert hashes(fresh) == hashes(finished)


def test_a_second_run_is_refused_and_an_interrupted_run_is_resumed(done):
    done.params(train={"seed": 1})
    first = done.start(sys.executable, "-m", "flows.cli", "run")
    read_until(first, "Running stage 'train'")
    output = done.millrace("run", code=1)
    assert f"a run is at work here already (process {first.pid})" in output
    read_until(first, "epoch 2/")
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "interrupted: the same command goes on from here" in output
    assert "Traceback" not in output
    wait_gone(done)
    assert "resumed after epoch" in done.run("dvc", "repro", "train")


def test_a_killed_stage_is_reported_in_one_line_and_resumed_by_the_next_run(done, finished):
    done.params(train={"l1": 1e-9})
    run = done.start(sys.executable, "-m", "flows.cli", "run")
    read_until(run, "epoch 3/")
    (stage,) = [
        process for process in relatives(done) if "stages.train" in process.cmdline() and process.name() != "sh"
    ]
    stage.kill()
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "failed to reproduce 'train'" in output
    assert "Traceback" not in output
    wait_gone(done)
    assert "resumed after epoch" in done.run("dvc", "repro", "train")


def test_a_refusal_by_the_gate_exits_with_3_and_prints_the_reasons(done):
    done.params(gate={"thresholds": {"calibration_error": {"max": 0.0}, "recall[7]": {"min": 0.1}}})
    output = done.millrace("run", code=3)
    assert re.search(r"refused: calibration_error is 0\.\d+, which is not at most 0\b", output)
    assert "refused: recall" not in output
    assert "which is not at most 0" in (done.folder / "reports/index.html").read_text().partition("Criteria")[0]
    assert done.run("dvc", "repro")  # for DVC a refusal is an answer


def test_a_gate_without_thresholds_refuses(done):
    done.params(gate={"thresholds": {}, "yardsticks": NO_YARDSTICKS})
    assert "gate.thresholds in params.yaml is empty" in done.millrace("run", code=3)


def test_a_rejected_table_exits_with_3_and_leaves_its_report(done):
    done.params(validate={"columns": {"image": {"min_side": 9}}})
    output = done.millrace("run", code=3)
    assert "image.width" in output
    assert (done.folder / "reports/validation/index.html").exists()
    assert "Data refused" in (done.folder / "reports/index.html").read_text()


def test_an_unknown_parameter_exits_with_2_and_suggests_the_nearest(done):
    done.params(train={"epoch": 3})
    assert "train.epoch is unknown: did you mean 'epochs'?" in done.millrace("run", code=2)


def test_network_parameters_are_checked_before_the_run(done):
    before = done.run("dvc", "status")
    done.params(model={"encoders": {"image": {"name": "cn"}}})
    output = done.millrace("run", code=2)
    assert "params.yaml: model.encoders.image: no encoder 'cn'; did you mean 'cnn'?" in output
    assert "Running stage" not in output
    done.params(model={"encoders": {"image": {"name": "cnn", "width": 32, "depth": 1}}})
    assert done.run("dvc", "status") == before
    assert "params.yaml is sound" in done.millrace("check")


def test_data_outside_the_project_are_rejected_with_the_command_to_import_them(done, tmp_path):
    done.params(data={"path": str(tmp_path)})
    assert f"millrace data add {tmp_path}" in done.millrace("run", code=2)
    done.params(data={"path": "data/raw/cats"})
    assert "there is no data/raw/cats: bring it there with `millrace data add`" in done.millrace("run", code=2)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("file", "is a file in no known format"),
        ("empty", "is an empty folder in no known format"),
        ("gone", "there is no "),
        ("..", "contains this project"),
    ],
)
def test_only_a_data_set_can_be_added(finished, tmp_path, made, words):
    if made == "..":
        tmp_path = finished.folder
    if made == "file":
        (tmp_path / made).write_text("x")
    if made == "empty":
        (tmp_path / made).mkdir()
    output = finished.millrace("data", "add", str(tmp_path / made), code=2)
    assert f"{tmp_path / made}" in output and words in output


def test_data_are_added_under_another_name(done, tmp_path):
    for label in ("a", "b"):
        shutil.copytree(done.folder / "data/builtin/digits/7", tmp_path / "some pictures" / label)
    done.millrace("data", "add", str(tmp_path / "some pictures"), "--name", "mine")
    assert (done.folder / "data/raw/mine.dvc").exists()
    assert "data/raw/mine" in (done.folder / "params.yaml").read_text()
    taken = done.millrace("data", "add", str(tmp_path / "some pictures"), "--name", "mine", code=2)
    assert f"millrace data add '{tmp_path / 'some pictures'}' --name NAME" in taken
    unnamed = done.millrace("data", "add", str(tmp_path / "some pictures"), "--name", "", code=2)
    assert "the name '' must consist of" in unnamed


def test_a_preset_without_its_data_changes_nothing(done):
    before = (done.folder / "params.yaml").read_text()
    assert "there is no data/raw/trashnet" in done.millrace("run", "--preset", "trashnet", code=2)
    assert (done.folder / "params.yaml").read_text() == before


def test_ctrl_c_interrupts_a_flow_without_a_retry(done):
    done.params(train={"seed": 1})
    flow = done.start(sys.executable, "-m", "flows.cli", "run", "--flow")
    read_until(flow, "epoch 2/")
    flow.send_signal(signal.SIGINT)
    output, _ = flow.communicate(timeout=60)
    assert flow.returncode == 130
    assert "interrupted: the same command goes on from here" in output
    assert "Traceback" not in output
    assert "Retry" not in output
    wait_gone(done)


def test_a_missing_params_file_is_reported(done):
    (done.folder / "params.yaml").unlink()
    assert "git checkout params.yaml" in done.millrace("run", code=2)


def test_a_missing_server_is_reported_with_the_remedy(done, tmp_path):
    shutil.rmtree(done.folder / "reports")
    done.params(export={"max_batch": 32})
    alone = tmp_path / "alone/.venv"  # this environment in a folder that has none for the server
    (alone / "bin").mkdir(parents=True)
    (alone / "bin/python").symlink_to(Path(sys.executable).resolve())
    (alone / "lib").symlink_to(Path(sys.prefix) / "lib")
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", alone)
    command = [str(alone / "bin/python"), "-m", "flows.cli", "run"]
    surroundings = environment(done.folder)
    del surroundings["MILLRACE_TRITON"]
    result = subprocess.run(command, cwd=done.folder, env=surroundings, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "make setup" in result.stderr
    assert "MILLRACE_TRITON" in result.stderr


def test_a_model_restored_from_the_cache_is_served(done):
    shutil.rmtree(done.folder / "models")
    done.run("dvc", "checkout")
    assert "up to date" in done.run("dvc", "status")
    with serving(done) as address:
        answer = ask_grpc(address["grpc"], picture(done))
    assert answer[1] == release(done)
    assert "up to date" in done.run("dvc", "status")


def test_stock_clients_get_the_label_and_the_release(done):
    with serving(done) as address:
        for ask, where in ((ask_grpc, "grpc"), (ask_http, "http")):
            label, answered_by = ask(address[where], picture(done))
            assert label == "7"
            assert answered_by == release(done)
        output = done.millrace("predict", str(picture(done)), "--server", address["grpc"])
        assert '"label": "7"' in output
        assert release(done) in output
        wrong = done.millrace(
            "predict", "README.md", "tests", "gone", str(picture(done)), "--server", address["grpc"], code=1
        )
        assert re.search("error: README.md: .*not a picture that Pillow can read", wrong)
        assert re.search("error: tests/conftest.py: .*not a picture", wrong)
        assert re.search("error: gone: .*No such file or directory", wrong)
        assert '"label": "7"' in wrong
        mistaken = done.millrace("predict", str(picture(done)), "--server", address["http"], code=1)
        assert f"no model answers at {address['http']} by gRPC" in mistaken
    assert "65535" in done.millrace("serve", "--http-port", "99999", code=2)
    assert "need a port each" in done.millrace("serve", "--http-port", "8001", code=2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} cannot be used" in done.millrace("serve", "--http-port", str(port), code=1)


def test_predict_without_a_server_names_the_command_that_starts_one(finished):
    output = finished.millrace("predict", str(picture(finished)), "--server", "127.0.0.1:9", code=1)
    assert "millrace serve" in output


def test_an_altered_model_is_not_released(done):
    network = next(done.folder.glob("models/repository/*_network/1/model.onnx"))
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.chmod(0o644)
    network.write_bytes(content)
    output = done.millrace("release", code=1)
    assert "model.onnx has other bytes" in output
    assert "dvc checkout" in output


def test_files_that_users_put_into_data_folders_are_kept(finished, tmp_path):
    readme = (ROOT / "README.md").read_text()
    assert "data/raw/NAME" in readme
    other = finished.copy(tmp_path / "other")
    pictures = tmp_path / "pictures"
    shutil.copytree(finished.folder / "data/builtin/digits", pictures)
    other.millrace("data", "add", str(pictures))
    assert "data/raw/pictures" in (other.folder / "params.yaml").read_text()
    picture_file = other.folder / "data/raw/pictures/0/mine.png"
    shutil.copy(pictures / "1" / min(os.listdir(pictures / "1")), picture_file)
    notes = other.folder / "data/raw/notes.txt"
    notes.write_text("kept")
    other.params(**FAST)
    for _ in range(2):
        other.millrace("run")
        assert picture_file.exists()
        assert notes.read_text() == "kept"


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_output(finished, tmp_path):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine lets no test mount a small disk")
    script = (
        'mount -t tmpfs -o size=16k none "$1" && cd "$2" && '
        '"$3" -m stages.ingest data/builtin/digits "$1/table.parquet" "$1/rejects.csv"; echo code $?; ls -A "$1"'
    )
    surroundings = environment(finished.folder)
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), str(finished.folder), sys.executable]
    result = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert "the disk is full" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.split() == ["code", "1"]
