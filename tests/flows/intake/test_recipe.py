"""The recipe for a new data set: its values for a handful of facts, and the clean sheet that it is written on."""

from __future__ import annotations

import re
import shutil
from typing import get_type_hints

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from flows.intake import clean_sheet, look
from flows.intake.recipe import Facts, choose
from flows.intake.recipes import Seen
from stages import train
from stages.networks import network
from stages.schema import Column, Schema
from stages.schema.kinds import number, target_number
from stages.settings import params, sections
from stages.tables.arrays import create_split
from tests.support.project import ROOT
from tests.support.training import ARGUMENTS


def numbers(rows, columns=6):
    return Facts(rows, {"number": Seen(rows, columns)})


def pictures(rows, side, mode="RGB"):
    facts = {"height": np.full(5, side), "width": np.full(5, side), "mode": np.array([mode] * 5, object)}
    return Facts(rows, {"image": Seen(rows, 1, facts)})


def steps(facts, train):
    rows = round(0.7 * facts.rows)
    return train["epochs"] * max(1, rows // min(rows, train["batch_size"]))


@pytest.mark.parametrize(
    ("rows", "batch_size", "least", "most"),
    [(150, 16, 1000, 2000), (1_000, 32, 1000, 2500), (10_000, 256, 1000, 2500), (50_000, 256, 1000, 3000)],
)
def test_steps_are_bounded_whatever_the_rows(rows, batch_size, least, most):
    chosen = choose(numbers(rows))
    train = chosen.sections["train"]
    assert train["batch_size"] == batch_size
    assert least <= steps(numbers(rows), train) <= most
    assert 5 <= train["patience"] < train["epochs"]
    assert chosen.reasons["train"]["epochs"].startswith(f"{rows:,} rows, so at most ")


def test_a_table_gets_a_linear_model_with_an_ensemble_beside_it():
    model = choose(numbers(144)).sections["model"]
    assert model["trunk"]["name"] == "ensemble" and model["encoders"]["number"]["name"] == "spline"
    assert choose(numbers(50_000)).sections["model"]["trunk"]["width"] > model["trunk"]["width"]


def test_a_wide_table_gets_few_weights_for_each_column():
    assert choose(numbers(300, columns=2000)).sections["model"]["encoders"]["number"] == {"name": "linear", "size": 2}


def test_photos_are_mirrored_and_digits_are_not():
    photos, digits = (choose(facts).sections["train"]["augment"]["image"] for facts in FACTS_OF_PICTURES)
    assert photos["flip"] and "flip" not in digits and digits["shift"] > 0


FACTS_OF_PICTURES = (pictures(2_000, 500), pictures(1_800, 8, "L"))


def test_a_training_on_many_pictures_is_short():
    few, many = (choose(pictures(rows, 64)).sections["train"]["epochs"] for rows in (2_000, 50_000))
    assert 1 <= many < few


@pytest.mark.parametrize("kind", sections.feature_kinds())
def test_each_kind_has_a_recipe_that_fits_its_network(kind):
    facts = {"height": np.array([32]), "width": np.array([32]), "mode": np.array(["L"], object)}
    chosen = choose(Facts(500, {kind: Seen(500, 1, facts)})).sections
    schema = sections.declared({"x": {"kind": kind}}, {"y": {"kind": "class"}})
    spec = network.resolve(schema, chosen["model"])
    assert spec["trunk"]["name"] == chosen["model"]["trunk"]["name"]
    network.augmenter(schema, chosen["train"]["augment"])


def test_what_a_data_set_is_made_of(tmp_path):
    lines = ["size,word,kind", *(f"{row},w{row % 3},{row % 2}" for row in range(6000))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    seen = look.facts(tmp_path, "csv", {}, {"size": "number", "word": "category"}, {"kind": "class"})
    assert seen == Facts(6000, {"number": Seen(6000), "category": Seen(6000)})


def test_the_clean_sheet_has_every_setting_that_belongs_to_a_data_set():
    chosen = choose(numbers(150)).sections
    host = {"precision", "threads", "arithmetic", "accelerator", "devices", "strategy", "num_nodes"}
    host |= {"p99_ms", "max_slower", "max_larger", "yardsticks"}  # the last is written with each data set
    sheet = clean_sheet.over({"model": chosen["model"], "train": chosen["train"]})
    for name in ("schema", "validate", "split", "model", "train", "gate"):
        section = get_type_hints(params.Params)[name]
        assert set(sheet[name]) | host >= set(section.model_fields), name


def test_the_clean_sheet_agrees_with_the_projects_own_params():
    """But for what depends on the digits."""
    project = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    digits = {"features", "target", "encoders", "trunk", "head", "augment", "thresholds", "margins", "slices"}
    for section, values in clean_sheet.FRESH.items():
        for key in values.keys() - digits - {"robustness"}:
            assert values[key] == project[section][key], f"{section}.{key}"


def test_nothing_of_an_earlier_data_set_stays(fresh, tmp_path):
    table = tmp_path / "small.csv"
    table.write_text("\n".join(["a,b,y", *(f"{row},{row % 7},{'no' if row % 3 else 'yes'}" for row in range(200))]))
    params_file = fresh.folder / "params.yaml"
    untouched = params_file.read_text()
    fresh.millrace("data", "add", str(table))
    of_fresh_clone = params_file.read_text()
    params_file.write_text(untouched)
    fresh.params(
        schema={"features": {"old": "number", "p": "image"}, "target": {"z": "number"}, "keep": ["hospital"]},
        validate={"columns": {"old": {"min": 0}}, "max_leakage": 0.5, "min_rows": 0},
        split={"by": "group", "column": "hospital", "val": 0.3, "test": 0.3},
        model={"init_from": "old.safetensors", "freeze_encoders": True, "name_map": {"a": "b"}, "encoders": {"p": {}}},
        train={
            "augment": {"p": {"flip": True}},
            "l1": 0.5,
            "patience": 3,
            "clip_norm": 1.0,
            "debug": "fast",
            "seed": 9,
        },
        gate={
            "thresholds": {"r2": {"min": 0.9}},
            "margins": {"r2": 0.1},
            "slices": {"old": {"min_rows": 3}},
            "robustness": {"p": {"shift": {"by": 0.1, "max_changed": 0.1}}},
            "drift": {"max_distance": 0.9, "train_test": 0.9, "columns": {"old": 0.3}, "min_rows": 1},
            "approval": ["champion"],
            "max_disagreement": 0.5,
        },
    )
    fresh.millrace("data", "add", str(fresh.folder / "data/raw/small"))
    assert re.sub(" +", " ", params_file.read_text()) == re.sub(" +", " ", of_fresh_clone)  # columns of comments move


def test_a_small_table_reaches_what_ridge_reaches(tmp_path, monkeypatch):
    """150 rows of a linear relation: the digits' recipe stopped at an r2 of 0.83."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(150, 6)) * [1, 10, 100, 1, 0.1, 5] + 50
    y = (x - 50) @ (draw.normal(size=6) / [1, 10, 100, 1, 0.1, 5]) + draw.normal(size=150) * 0.1
    parts = {"train": slice(0, 105), "val": slice(105, 120), "test": slice(120, 150)}
    known = parts["train"]
    columns = [Column(f"x{i}", "number", {}, number.fit([x[known, i]], number.Options())) for i in range(6)]
    target = Column("y", "target_number", {}, target_number.fit([y[known]], target_number.Options()))
    schema = Schema(tuple(columns), target)
    schema.dump(tmp_path / "schema.json")
    (block,) = schema.blocks()
    for name, rows in parts.items():
        (array,) = create_split(
            tmp_path / "arrays" / name, np.arange(len(y))[rows], target_number.transform(y[rows], {}), [block.tensor]
        )
        array[:] = x[rows]
    (tmp_path / "arrays/summary.json").write_text("{}")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    chosen = choose(numbers(150)).sections
    params.edit(clean_sheet.over(chosen) | {"schema": {}}, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    train.main(*map(tmp_path.joinpath, ARGUMENTS))
    net, test = network.load(tmp_path / "weights.safetensors", schema), parts["test"]
    with torch.no_grad():
        answers = net.predict(net([torch.tensor(x[test], dtype=torch.float32)]))["value"][:, 0].numpy()
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(x[known] - 50, y[known]).predict(x[test] - 50)
    reached, possible = r2_score(y[test], answers), r2_score(y[test], ridge)
    assert possible > 0.99 and reached > possible - 0.01
