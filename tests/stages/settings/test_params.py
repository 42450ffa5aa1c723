"""Parsing params.yaml, the parameters that a stage sees, and edits that keep comments."""

from __future__ import annotations

import re
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from stages import evaluate, prepare, train, verify
from stages.core.errors import UserError
from stages.settings import params
from tests.support.failing import failing
from tests.support.parameters import GIVEN, in_folder, put
from tests.support.project import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    return in_folder(tmp_path, monkeypatch)


PRESETS = sorted(path.stem for path in (ROOT / "stages/settings/presets").glob("*.yaml"))


LONG = ("columns", "options")  # the last keys of sections, which a blank line follows


def test_the_projects_own_params_are_valid():
    params.parse(ROOT / "params.yaml")


@pytest.mark.parametrize(("written", "value"), [("1e-3", 0.001), ("3E-4", 0.0003), ("1", 1.0), ("0.5", 0.5)])
def test_numbers_are_read_as_dvc_reads_them(project, written, value):
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert "learning_rate: 0.003" in text
    Path("params.yaml").write_text(text.replace("learning_rate: 0.003", f"learning_rate: {written}"), encoding="utf-8")
    assert params.parse().train.learning_rate == value


def test_the_short_form_of_a_column_equals_the_long_one(project):
    short = params.parse().schema.unfitted()
    put("schema.features.image", {"kind": "image"})
    assert params.parse().schema.unfitted() == short


def test_a_batch_that_divides_among_devices_is_valid(project):
    put("train.devices", 4)
    assert params.parse().train.devices == 4


def test_a_stage_sees_the_parameters_listed_for_it(project):
    whole, listed = params.parse(), params.load("train", train.Parameters)
    assert listed.train.epochs == whole.train.epochs
    assert listed.model == whole.model
    assert params.load("prepare", prepare.Parameters).values() == {
        "schema.features": {"image": {"kind": "image"}},
        "schema.target": {"label": {"kind": "class"}},
        "split.by": "hash",
        "split.column": "none",
        "split.val": 0.1,
        "split.test": 0.2,
    }


@pytest.mark.parametrize(
    ("stage", "section", "key"),
    [
        (verify, "export", "name"),
        (verify, "gate", "level"),
        (evaluate, "train", "epochs"),
        (prepare, "schema", "keep"),  # which has a default
    ],
)
def test_a_stage_sees_no_other_parameters(project, stage, section, key):
    listed = params.load(stage.__name__.rpartition(".")[2], stage.Parameters)
    with pytest.raises(AttributeError, match=f"dvc.yaml does not list {section}.{key} under the params of this stage"):
        getattr(getattr(listed, section), key)


def test_the_parameters_of_a_stage_do_not_change(project):
    listed = params.load("train", train.Parameters)
    with pytest.raises(ValidationError, match="frozen"):
        listed.train.epochs = 3
    with pytest.raises(FrozenInstanceError):
        listed.train = None


def test_a_stage_checks_the_whole_file(project):
    put("gate.p99_ms", -1)
    with failing(UserError, "params-out-of-range", "gate.p99_ms"):
        params.load("train", train.Parameters)


def test_paths_come_from_dvc_yaml(project):
    assert params.paths()["verdict"] == "reports/verdict.json"


def comments(text):
    return [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("value", [{"a": {"kind": "image"}}, "word"])
def test_an_edit_keeps_comments_and_other_values(project, value):
    path = Path("params.yaml")
    before = path.read_text(encoding="utf-8")
    tree = YAML(typ="safe").load(before)
    for section, keys in tree.items():
        for key in keys:
            path.write_text(before, encoding="utf-8")
            params.edit({section: {key: value}})
            after = path.read_text(encoding="utf-8")
            assert comments(after) == comments(before)
            assert YAML(typ="safe").load(after) == tree | {section: keys | {key: value}}


def test_an_edit_without_changes_keeps_every_byte(project):
    before = Path("params.yaml").read_bytes()
    params.edit({section: GIVEN[section] for section in ("data", "split", "train")})
    assert Path("params.yaml").read_bytes() == before


def test_reasons_follow_the_comments_until_the_next_edit(project):
    path = Path("params.yaml")
    before = path.read_text(encoding="utf-8")
    reasons = {"train": {"epochs": "144 rows", "batch_size": "few rows"}}
    params.annotate(reasons)
    after = path.read_text(encoding="utf-8")
    assert re.search(r"\n  epochs: 20 +# chosen: 144 rows\n", after)
    assert re.search(r"\n  batch_size: 64 +# over all devices together; chosen: few rows\n", after)
    params.annotate(reasons)
    assert path.read_text(encoding="utf-8") == after
    params.edit({"train": {"epochs": 20, "batch_size": 64}})
    assert path.read_text(encoding="utf-8") == before


def test_an_edit_writes_short_mappings_in_one_line_and_long_ones_over_several(project):
    path = Path("params.yaml")
    before = path.read_text(encoding="utf-8")
    many = dict.fromkeys("abcd", 1)
    params.edit({"validate": {"columns": {"label": {"max_labels": None}, "many": many}}, "data": {"options": {"a": 1}}})
    columns, options = (next(line for line in before.splitlines() if f"  {key}: {{}}" in line) for key in LONG)
    lines = ["    label: {max_labels: null}", "    many:", *(f"      {key}: 1" for key in many)]
    expected = before.replace(columns, "\n".join([columns.replace("{}", "  "), *lines]))
    assert path.read_text(encoding="utf-8") == expected.replace(options, options.replace("{}    ", "{a: 1}"))


def test_a_merge_keeps_comments_and_other_keys(project):
    path = Path("params.yaml")
    before = path.read_text(encoding="utf-8")
    params.merge({"validate": {"columns": {"image": {"min_side": 8}, "label": {"labels": ["no", "7"]}}}})
    empty = next(line for line in before.splitlines() if "  columns: {}" in line)
    lines = [empty.replace("{}", "  "), "    image: {min_side: 8}", "    label: {labels: [no, '7']}"]
    assert path.read_text(encoding="utf-8") == before.replace(empty, "\n".join(lines))
    params.merge({"validate": {"columns": {"image": {"max_side": 9}}}})
    after = path.read_text(encoding="utf-8")
    assert after == before.replace(empty, "\n".join(lines)).replace("min_side: 8}", "min_side: 8, max_side: 9}")
    assert params.parse().validate.columns["label"] == {"labels": ["no", "7"]}


@pytest.mark.parametrize("write", [params.edit, params.merge])
@pytest.mark.parametrize(
    "name", ["paid?", "area:m2", "08:00", "1:a", "yes", "null", "1e3", "#x", "- a", " ", "a\nb", "\x85"]
)
def test_any_name_of_a_column_is_read_back_as_it_was_written(project, write, name):
    write({"data": {"schema": {name: {"kind": "category", "values": [name]}}}})
    read = YAML(typ="safe").load((project / "params.yaml").read_text())
    assert read["data"]["schema"][name] == {"kind": "category", "values": [name]}


def test_an_unknown_preset_is_an_error(project):
    with failing(UserError, "params-unknown-preset", "'fashion-minst'"):
        params.preset("fashion-minst")


@pytest.mark.parametrize("preset", PRESETS)
def test_params_are_valid_after_applying_a_preset(project, preset):
    before = Path("params.yaml").read_text(encoding="utf-8")
    params.edit(params.preset(preset))
    params.parse()
    assert comments(Path("params.yaml").read_text(encoding="utf-8")) == comments(before)


def test_accepted_compares_params_with_the_lock(project):
    assert not params.accepted("gate")
    shutil.copy(ROOT / "dvc.yaml", project)
    gate = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))["gate"]
    entry = {"cmd": "gate", "params": {"params.yaml": {f"gate.{name}": value for name, value in gate.items()}}}
    with Path("dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump({"stages": {"gate": entry}}, file)
    assert params.accepted("gate")
    put("gate.p99_ms", 1.0)
    assert not params.accepted("gate")
