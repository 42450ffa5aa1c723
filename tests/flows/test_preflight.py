"""Mistakes that would fail late in a run are found before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from flows import preflight
from stages.core.errors import Misuse
from stages.evaluation.metrics import target_class
from stages.schema import Column
from stages.settings import params
from stages.settings.gate import Bound
from tests.support.failing import failing
from tests.support.project import ROOT


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A current folder with the project's dvc.yaml and params.yaml."""
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_projects_params_are_valid():
    preflight.everything(params.parse())
    assert preflight.due()  # nothing has run here


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        (
            "model",
            {"encoders": {"image": {"name": "cn"}}},
            ("params-unknown-network", "model.encoders.image", "'cn'", "'cnn'"),
        ),
        ("model", {"trunk": {"dropout": 2}}, ("params-out-of-range", "model.trunk.dropout")),
        ("model", {"head": {"smoothing": 0.1}}, ("params-unknown-key", "model.head", "'label_smoothing'")),
        (
            "model",
            {"init_from": "nowhere.safetensors"},
            ("train-weights-missing", "model.init_from", "nowhere.safetensors"),
        ),
        ("model", {"init_from": "params.yaml"}, ("train-weights-changed", "model.init_sha256", "params.yaml")),
        (
            "train",
            {"augment": {"image": {"rotat": 5}}},
            ("params-unknown-key", "train.augment.image", "'rotat'", "'rotate'"),
        ),
        ("train", {"augment": {"imag": {}}}, ("params-unknown-column", "train.augment", "'imag'", "'image'")),
        ("train", {"precision": "16-mixed", "accelerator": "cpu"}, ("train-no-gpu", "train.precision")),
        ("gate", {"thresholds": {"acuracy": {"min": 0.5}}}, ("params-unknown-metric", "'acuracy'", "'accuracy'")),
        ("gate", {"thresholds": {"r2": {"min": 0}}}, ("params-unknown-metric", "gate.thresholds", "'r2'")),
        ("gate", {"thresholds": {"zzz": {"min": 0}}}, ("params-unknown-metric", "'zzz'", "f1[LABEL]")),
        (
            "gate",
            {"thresholds": {"recal[7]": {"min": 0.5}}},
            ("params-unknown-metric", "'recal[7]'", "'recall[LABEL]'"),
        ),
        ("gate", {"thresholds": {"accuracy[7]": {"min": 0.5}}}, ("params-unknown-metric", "'accuracy[7]'")),
        (
            "gate",
            {"thresholds": {"recall": {"min": 0.5}}},
            ("params-unknown-metric", "'recall'"),
        ),
        ("gate", {"thresholds": {"recall[7": {"min": 0.5}}}, ("params-unknown-metric", "'recall[7'")),
        (
            "gate",
            {"slices": {"label": {"margins": {"acuracy": 0.1}}}},
            ("params-unknown-metric", "gate.slices.label.margins", "'acuracy'"),
        ),
        ("gate", {"thresholds": {"accuracy": {"min": 97.0}}}, ("params-impossible-threshold", "accuracy.min", "97")),
        ("gate", {"thresholds": {"recall[7]": {"max": -1.0}}}, ("params-impossible-threshold", "recall[7].max", "-1")),
    ],
)
def test_a_mistake_is_reported_with_its_key(section, changes, expected):
    params.edit({section: changes})
    with failing(Misuse, *expected, "params.yaml"):
        preflight.everything(params.parse())


def test_every_class_metric_is_accepted():
    labels = ["a", "b]", "c[x]"]
    target = Column("label", "target_class", fitted={"labels": labels})
    computed = target_class.metrics(target)
    computed.update(torch.eye(3), torch.arange(3))
    names = list(target_class.scalars(computed.compute(), target))
    assert len(names) == len(target_class.METRICS) + len(target_class.METRICS_BY_LABEL) * len(labels)
    preflight.thresholds(dict.fromkeys(names, Bound(min=0.5)), {}, target)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/builtin/digit", ("data-unknown-builtin", "data/builtin/digits")),
        ("data/raw/cats", ("data-not-found", "`millrace data add`")),
        ("data/raw/dogs", ("data-not-found", "`dvc pull data/raw/dogs.dvc`")),
    ],
)
def test_missing_data(path, expected):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/dogs.dvc").touch()
    with failing(Misuse, *expected, "params.yaml: data.path", path):
        preflight.data(Path(path), Path("data/builtin"), "digits")


def test_existing_data_and_data_that_fetch_makes():
    Path("data/raw/cats").mkdir(parents=True)
    preflight.data(Path("data/raw/cats"), Path("data/builtin"), "digits")
    preflight.data(Path("data/builtin/digits"), Path("data/builtin"), "digits")  # fetch makes it
