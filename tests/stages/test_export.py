"""Exporters that spoil a good network: its own figures stay good, and the gate refuses what is served, saying why."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from flows.report import page as report
from stages import challenge, evaluate, export, gate, ingest, measure, prepare, profile, train, verify
from stages.networks import network, normalize
from stages.networks.heads import target_class
from stages.settings import params
from tests.support.project import ROOT

TINTS = {"red": (170, 60, 60), "green": (60, 170, 60), "blue": (60, 60, 170)}


def run(stage):
    """A stage on the paths that dvc.yaml gives it, in this folder and this process."""
    command = YAML(typ="safe").load(Path("dvc.yaml"))["stages"][stage.__name__.removeprefix("stages.")]["cmd"]
    paths = params.paths()
    stage.main(*(Path(paths[name]) for name in re.findall(r"\$\{paths\.(\w+)\}", command)))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory, a_server):
    """A folder in which a network has learnt to tell three tints; the paths of all that the stages write there."""
    folder = tmp_path_factory.mktemp("coloured")
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
    monkeypatch.setattr(network.Network, "forward", lambda self, blocks: real(self, [each.flip(-1) for each in blocks]))


def softmax_twice(monkeypatch):
    real = target_class.Head.answer
    twice = {"probabilities": lambda answer: answer.softmax(1)}
    monkeypatch.setattr(
        target_class.Head,
        "answer",
        lambda self, scores: {name: twice[name](value) for name, value in real(self, scores).items()},
    )


def no_normalisation(monkeypatch):
    monkeypatch.setattr(normalize.Normalise, "forward", lambda self, x: x.float())


@pytest.mark.parametrize("spoil", [other_channels, softmax_twice, no_normalisation])
def test_it_is_refused_and_the_page_says_why(coloured, tmp_path, monkeypatch, spoil):
    shutil.copytree(coloured, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    paths = params.paths()
    at = {name: Path(path) for name, path in paths.items()}
    with monkeypatch.context() as meanwhile:
        spoil(meanwhile)
        run(export)
    for stage in (verify, gate):
        run(stage)
    assert json.loads(at["metrics"].read_text())["test"]["accuracy"] > 0.9
    served, own = (np.load(path)["probabilities"] for path in (at["answers"] / "answers.npz", at["expected"]))
    assert np.abs(served - own).max() > 0.01
    verdict = json.loads(at["verdict"].read_text())
    assert verdict["verdict"] == "refuse"
    assert "served: batches of 64" in [each["name"] for each in verdict["criteria"] if not each["holds"]]
    page = report.write(paths).read_text(encoding="utf-8")
    assert "<h1>Refused</h1>" in page
    assert "the served answers are not the checkpoint&#39;s" in page.partition("<h2>")[0]
