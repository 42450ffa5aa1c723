"""Evaluation of a model without mistakes, and of splits with a single row."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from stages import evaluate
from stages.gating import metrics
from stages.networks import network
from stages.schema import Schema
from stages.settings import params
from stages.tables.arrays import SPLITS, create_split, open_split


@pytest.mark.parametrize("rows", [1, None], ids=["one row", "all rows"])
def test_a_perfect_model_is_evaluated(finished, tmp_path, rows):
    paths = {name: finished.folder / path for name, path in params.paths(finished.folder / "dvc.yaml").items()}
    schema = Schema.load(paths["schema"])
    net, tensors = network.load(paths["weights"], schema), [block.tensor for block in schema.blocks()]
    for name in SPLITS:
        split = open_split(paths["arrays"], name)
        chosen = slice(None) if name == "train" else slice(rows)
        predicted = evaluate.predict(net, split)["probabilities"].argmax(1)
        (array,) = create_split(tmp_path / "arrays" / name, split.rows[chosen], predicted[chosen], tensors)
        array[:] = split.blocks[0][chosen]
    outputs = [tmp_path / name for name in ("metrics.json", "plots", "expected.npz", "suspects.csv", "yardsticks.npz")]
    evaluate.main(paths["weights"], tmp_path / "arrays", paths["schema"], paths["table"], *outputs)
    measured = json.loads(outputs[0].read_text())
    assert list(measured) == ["val", "test", "constant", "linear", "trees"] and measured["trees"]["accuracy"] > 0.8
    figures = measured["test"]
    assert figures["accuracy"] == figures["f1_macro"] == figures["recall_worst"] == 1
    plots = {path.stem for path in outputs[1].iterdir()}
    assert plots == {"mistakes", "suspects", "outliers", "confusion", "reliability"}
    with outputs[3].open(encoding="utf-8", newline="") as file:
        assert sum(1 for _ in csv.DictReader(file)) == 200

    ours, truth = np.load(outputs[2])["probabilities"], open_split(tmp_path / "arrays", "test").target
    _, same = metrics.measure(schema, truth, ours, ours, ("f1_macro", "accuracy"), ("accuracy", "f1_macro"), 0.05, 20)
    assert same["accuracy"].value == 0 and same["accuracy"].is_finite
