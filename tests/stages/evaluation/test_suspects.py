"""Suspects: planted wrong labels and outliers come first, for every kind of target."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from stages.evaluation import suspects
from stages.networks import network
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables import table
from stages.tables.arrays import SPLITS, create_split, open_split


@pytest.fixture(scope="module")
def paths(finished):
    return {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}


@pytest.fixture(scope="module")
def planted(paths, tmp_path_factory):
    """The rows of wrong labels, one in thirty, that are planted among the digits; and the suspects found."""
    folder = tmp_path_factory.mktemp("planted") / "arrays"
    shutil.copytree(paths["arrays"], folder)
    draw, wrong = np.random.default_rng(0), []
    for name in SPLITS:
        split = open_split(folder, name)
        chosen = np.flatnonzero(draw.random(len(split)) < 1 / 30)
        target = split.target.copy()
        target[chosen] = (target[chosen] + draw.integers(1, 10, len(chosen))) % 10
        np.save(folder / name / "target.npy", target)
        wrong += split.rows[chosen].tolist()
    schema = Schema.load(paths["schema"])
    net = network.load(paths["weights"], schema)
    return wrong, suspects.find(net, schema, folder)


def test_planted_labels_are_the_most_doubtful(planted):
    wrong, suspected = planted
    assert len(suspected.rows) == 1797 and len(wrong) > 40
    worst = suspected.rows[suspected.worst(suspected.doubts, len(wrong))].tolist()
    assert len(set(worst) & set(wrong)) >= 0.9 * len(wrong)


def test_suspects_are_listed_with_the_prediction_of_their_neighbors(planted, paths, tmp_path):
    wrong, suspected = planted
    schema = Schema.load(paths["schema"])
    suspects.write(suspected, schema, paths["table"], tmp_path / "suspects.csv")
    with (tmp_path / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["suspect"] for row in rows] == ["label"] * suspects.LISTED + ["outlier"] * suspects.LISTED
    scores = [float(row["score"]) for row in rows[: suspects.LISTED]]
    assert scores == sorted(scores, reverse=True)
    sources = table.column(paths["table"], "_source")
    assert all(row["source"] == sources[int(row["row"])] for row in rows)
    first = rows[0]
    assert int(first["row"]) in wrong and first["neighbours"].partition(", ")[0] == first["label"]  # the table is right


def test_of_many_samples_some_of_each_split_are_searched(paths, monkeypatch):
    monkeypatch.setattr(suspects, "MOST", 100)
    schema = Schema.load(paths["schema"])
    suspected = suspects.find(network.load(paths["weights"], schema), schema, paths["arrays"])
    shares = {name: (suspected.split == name).mean() for name in SPLITS}
    assert len(suspected.rows) == 100 and shares == pytest.approx({"train": 0.69, "val": 0.1, "test": 0.21}, abs=0.02)


class Passing:
    """A network whose features are its only block."""

    class trunk:
        width = 2

    def features(self, blocks):
        return blocks[0]


def test_planted_numbers_and_outliers_are_found(tmp_path):
    draw = np.random.default_rng(0)
    schema = Schema((), Column("price", "target_number", {}, {"mean": 0.0, "std": 1.0, "coverage": 0.9}))
    for split, rows in zip(SPLITS, np.split(np.arange(300), [200, 250]), strict=True):
        x = draw.normal(size=(len(rows), 2)).astype(np.float32)
        y = x.sum(1, keepdims=True)
        x[0, 0], y[1] = np.nan, np.nan_to_num(y[1]) + 8
        if split == "test":
            x[2] = 30.0
        (array,) = create_split(tmp_path / split, rows, y, [type("Tensor", (), {"dtype": "float32", "shape": (2,)})])
        array[:] = x
    suspected = suspects.find(Passing(), schema, tmp_path)
    assert set(suspected.rows[suspected.worst(suspected.doubts, 3)]) == {1, 201, 251}
    assert suspected.rows[suspected.worst(suspected.distances, 1)] == [252]


@pytest.mark.parametrize("kind", ["target_number", "target_class"])
def test_a_split_of_one_row_may_be_left_out(tmp_path, monkeypatch, kind):
    """Evenly spread samples may miss a small split."""
    monkeypatch.setattr(suspects, "MOST", 10)
    fitted = {"labels": ["a", "b"], "mean": 0.0, "std": 1.0, "coverage": 0.9}
    schema = Schema((), Column("price", kind, {}, fitted))
    for split, rows in zip(SPLITS, np.split(np.arange(300), [298, 299]), strict=True):
        y = np.zeros((len(rows), 1)) if kind == "target_number" else np.zeros(len(rows), np.int64)
        (array,) = create_split(tmp_path / split, rows, y, [type("Tensor", (), {"dtype": "float32", "shape": (2,)})])
        array[:] = 0.0
    suspected = suspects.find(Passing(), schema, tmp_path)
    assert len(suspected.rows) == 10 and "val" not in suspected.split
    assert np.isfinite(suspected.doubts).all() and np.isfinite(suspected.distances).all()
