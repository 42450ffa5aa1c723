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
    ("section", "changes", "words"),
    [
        ("model", {"encoders": {"image": {"name": "cn"}}}, "model.encoders.image: no encoder 'cn'; did you mean 'cnn'"),
        ("model", {"trunk": {"dropout": 2}}, "model.trunk.dropout: "),
        ("model", {"head": {"smoothing": 0.1}}, "model.head: no option 'smoothing'; did you mean 'label_smoothing'"),
        ("model", {"init_from": "nowhere.safetensors"}, "model.init_from: there is no file nowhere.safetensors"),
        ("model", {"init_from": "params.yaml"}, "model.init_sha256: params.yaml has "),
        (
            "train",
            {"augment": {"image": {"rotat": 5}}},
            "train.augment.image: no option 'rotat'; did you mean 'rotate'",
        ),
        ("train", {"augment": {"imag": {}}}, "train.augment: no block or kind 'imag'; did you mean 'image'"),
        ("train", {"precision": "16-mixed", "accelerator": "cpu"}, "train.precision 16-mixed needs a GPU"),
        ("gate", {"thresholds": {"acuracy": {"min": 0.5}}}, "there is no metric 'acuracy': did you mean 'accuracy'?"),
        ("gate", {"thresholds": {"r2": {"min": 0}}}, "thresholds of a target of kind class: there is no metric 'r2': "),
        ("gate", {"thresholds": {"zzz": {"min": 0}}}, "f1[LABEL]: delete it, or write another"),
        ("gate", {"thresholds": {"recal[7]": {"min": 0.5}}}, "no metric 'recal[7]': did you mean 'recall[LABEL]'?"),
        ("gate", {"thresholds": {"accuracy[7]": {"min": 0.5}}}, "there is no metric 'accuracy[7]'"),
        (
            "gate",
            {"thresholds": {"recall": {"min": 0.5}}},
            "there is no metric 'recall': did you mean",
        ),
        ("gate", {"thresholds": {"recall[7": {"min": 0.5}}}, "there is no metric 'recall[7'"),
        (
            "gate",
            {"slices": {"label": {"margins": {"acuracy": 0.1}}}},
            "gate.slices.label.margins of a target of kind class: there is no metric 'acuracy': did you mean",
        ),
        ("gate", {"thresholds": {"accuracy": {"min": 97.0}}}, "accuracy.min is 97, but it is never over 1"),
        ("gate", {"thresholds": {"recall[7]": {"max": -1.0}}}, "recall[7].max is -1, but it is never under 0"),
    ],
)
def test_a_mistake_is_reported_with_its_key(section, changes, words):
    params.edit({section: changes})
    with pytest.raises(Misuse) as caught:
        preflight.everything(params.parse())
    assert str(caught.value).startswith("params.yaml: ")
    assert words in str(caught.value)


def test_every_class_metric_is_accepted():
    labels = ["a", "b]", "c[x]"]
    target = Column("label", "target_class", fitted={"labels": labels})
    computed = target_class.metrics(target)
    computed.update(torch.eye(3), torch.arange(3))
    names = list(target_class.scalars(computed.compute(), target))
    assert len(names) == len(target_class.METRICS) + len(target_class.METRICS_BY_LABEL) * len(labels)
    preflight.thresholds(dict.fromkeys(names, Bound(min=0.5)), {}, target)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/builtin/digit", "there is no built-in set data/builtin/digit: data.builtin makes data/builtin/digits"),
        ("data/raw/cats", "there is no data/raw/cats: bring it there with `millrace data add`"),
        ("data/raw/dogs", "there is no data/raw/dogs: `dvc pull data/raw/dogs.dvc` brings it here"),
    ],
)
def test_missing_data(path, words):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/dogs.dvc").touch()
    with pytest.raises(Misuse) as caught:
        preflight.data(Path(path), Path("data/builtin"), "digits")
    assert str(caught.value) == f"params.yaml: data.path: {words}"


def test_existing_data_and_data_that_fetch_makes():
    Path("data/raw/cats").mkdir(parents=True)
    preflight.data(Path("data/raw/cats"), Path("data/builtin"), "digits")
    preflight.data(Path("data/builtin/digits"), Path("data/builtin"), "digits")  # fetch makes it
