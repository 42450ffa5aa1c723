"""Faulty exporters: the checkpoint's metrics stay good, and the gate refuses the served model with the reason."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.report import page as report
from stages import challenge, evaluate, export, gate, ingest, measure, prepare, profile, train, verify
from stages.networks import network, normalize
from stages.networks.heads import target_class
from stages.settings import params
from tests.support.project import ROOT

TINTS = {"red": (170, 60, 60), "green": (60, 170, 60), "blue": (60, 60, 170)}


def run(stage):
    """Run a stage on its paths in dvc.yaml, in this folder and this process."""
    paths = params.paths()
    stage.main(*(Path(paths[name]) for name in inspect.signature(stage.main).parameters))


@pytest.fixture(scope="module")
def colored(tmp_path_factory, a_server):
    """A folder with a network that was trained to classify three tints, and everything that the stages write."""
    folder = tmp_path_factory.mktemp("colored")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    draw = np.random.default_rng(0)
    for name, tint in TINTS.items():
        (folder / "tints" / name).mkdir(parents=True)
        for number in range(60):
            pixels = draw.normal(tint, 25, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "tints" / name / f"{number:02d}.png")
    with contextlib.chdir(folder):
        params.edit(
            {
                "model": {"encoders": {"image": {"width": 8}}},
                "train": {"epochs": 6, "augment": {}},
                "measure": {"requests": 20},
                "gate": {"thresholds": {"accuracy": {"min": 0.9}}, "p99_ms": 1000.0, "robustness": {}, "slices": {}},
            }
        )
        at = {name: Path(path) for name, path in params.paths().items()}
        for path in at.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        for name in ("champion", "champion_verdict", "released_statistics"):
            at[name].write_text("{}")
        at["quarantine"].write_text("id,source\n")
        ingest.main(Path("tints"), at["table"], at["rejects"])
        for stage in (prepare, profile, train, evaluate, export, verify, challenge, measure, gate):
            run(stage)
        assert json.loads(at["verdict"].read_text())["verdict"] == "pass"
    return folder


def other_channels(monkeypatch):
    real = network.Network.forward
    monkeypatch.setattr(
        network.Network, "forward", lambda self, blocks: real(self, [block.flip(-1) for block in blocks])
    )


def softmax_twice(monkeypatch):
    real = target_class.Head.predict
    twice = {"probabilities": lambda value: value.softmax(1)}
    monkeypatch.setattr(
        target_class.Head,
        "predict",
        lambda self, scores: {name: twice[name](value) for name, value in real(self, scores).items()},
    )


def no_normalization(monkeypatch):
    monkeypatch.setattr(normalize.Normalize, "forward", lambda self, x: x.float())


@pytest.mark.parametrize("spoil", [other_channels, softmax_twice, no_normalization])
def test_a_faulty_export_is_refused_and_the_page_says_why(colored, tmp_path, monkeypatch, spoil):
    shutil.copytree(colored, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    paths = params.paths()
    at = {name: Path(path) for name, path in paths.items()}
    with monkeypatch.context() as meanwhile:
        spoil(meanwhile)
        run(export)
    for stage in (verify, gate):
        run(stage)
    assert json.loads(at["metrics"].read_text())["test"]["accuracy"] > 0.9
    served, expected = (np.load(path)["probabilities"] for path in (at["answers"] / "answers.npz", at["expected"]))
    assert np.abs(served - expected).max() > 0.01
    verdict = json.loads(at["verdict"].read_text())
    assert verdict["verdict"] == "refuse"
    assert "served: batches of 64" in [each["name"] for each in verdict["criteria"] if not each["holds"]]
    page = report.write(paths).read_text(encoding="utf-8")
    assert "<h1>Refused</h1>" in page
    assert "the served answers differ from the checkpoint&#39;s" in page.partition("<h2>")[0]
