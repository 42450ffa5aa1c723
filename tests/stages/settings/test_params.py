"""Each mistake in params.yaml with the words that mend it, what a stage may see of it, and edits that keep comments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import stages.schema.kinds
import stages.schema.views
from stages.core.errors import UserError
from stages.settings import params
from tests.support.project import ROOT

PRESETS = sorted(path.stem for path in (ROOT / "stages/settings/presets").glob("*.yaml"))
GIVEN = {
    "data": {"path": "data/builtin/digits", "format": "image_folder"},
    "schema": {"features": {"image": "image"}, "target": {"label": "class"}},
    "split": {"by": "hash", "column": "none", "val": 0.1, "test": 0.2},
    "train": {"epochs": 20, "batch_size": 64, "learning_rate": 0.003, "devices": 1},
    "gate": {"thresholds": {"accuracy": {"min": 0.95}}},
}
GONE = object()
LONG = ("columns", "options")  # sections' last keys, with a blank line behind them


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder to stand in, with the project's own dvc.yaml, and its params.yaml with the values that tests name."""
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    params.edit(GIVEN)
    return tmp_path


def put(key, value):
    """Change one value of params.yaml, by its dotted key, or take it away."""
    path = Path("params.yaml")
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    *above, last = key.split(".")
    place = tree
    for name in above:
        place = place[name]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(tree, file)


def fault():
    """What is wrong with params.yaml, without its name."""
    with pytest.raises(UserError) as caught:
        params.parse()
    message = str(caught.value)
    assert message.startswith("params.yaml")
    assert "\n" not in message
    return message.removeprefix("params.yaml").lstrip(":, ")


def test_the_projects_own_params_are_valid():
    params.parse(ROOT / "params.yaml")


MISTAKES = [
    (
        "gate.approval",
        ["acuracy"],
        "gate: approval: 'acuracy' is not a criterion that can be approved: did you mean 'accuracy'?",
    ),
    ("gate.approval", ["parity"], "gate: approval: 'parity' is not a criterion that can be approved"),
    # unknown and missing
    ("train.epoks", 3, "train.epoks is unknown: did you mean 'epochs'?"),
    ("trian", {}, "trian is unknown: did you mean 'train'?"),
    ("gate.thresholds.accuracy.mn", 0.5, "gate.thresholds.accuracy.mn is unknown: did you mean 'min'?"),
    ("validate.columns", {"imag": {}}, "validate.columns.imag: there is no such column: did you mean 'image'?"),
    (
        "validate.columns",
        {"image": {"min_sid": 3}},
        "validate.columns.image.min_sid is unknown: did you mean 'min_side'?",
    ),
    (
        "validate.columns",
        {"image": {"min_side": "3"}},
        "validate.columns.image.min_side: Input",
    ),
    (
        "validate.columns",
        {"label": {"min_distinct": 3}},
        "validate.columns.label.min_distinct is for category, number, text, and label is of kind class: delete it, and",
    ),
    ("gate.drift.max_distanse", 0.2, "gate.drift.max_distanse is unknown: did you mean 'max_distance'?"),
    ("gate.drift.max_distance", 1.2, "gate.drift.max_distance: Input should be less than or equal to 1 (it is 1.2)"),
    (
        "gate.drift.columns",
        {"image.brightnes": 0.5},
        "gate.drift.columns.image.brightnes: no statistics are kept of it: did you mean 'image.brightness'?",
    ),
    ("gate", GONE, "gate is missing"),
    ("train.epochs", GONE, "train.epochs is missing"),
    # types
    ("train", None, "train: give keys, such as seed, epochs, batch_size, optimizer (it is None)"),
    ("train.epochs", "three", "train.epochs: Input should be a valid integer (it is 'three')"),
    ("train.epochs", 3.5, "train.epochs: Input should be a valid integer (it is 3.5)"),
    ("train.epochs", True, "train.epochs: Input should be a valid integer (it is True)"),
    ("train.precision", 32, "train.precision: Input should be '32', 'bf16-mixed' or '16-mixed' (it is 32)"),
    ("model.freeze_encoders", 1, "model.freeze_encoders: Input should be a valid boolean (it is 1)"),
    ("schema.features", None, "schema.features: Input should be a valid dictionary (it is None)"),
    # ranges
    ("train.epochs", 0, "train.epochs: Input should be greater than or equal to 1 (it is 0)"),
    ("train.learning_rate", float("nan"), "train.learning_rate: Input should be a finite number (it is nan)"),
    ("validate.max_rejected", 1.5, "validate.max_rejected: Input should be less than or equal to 1 (it is 1.5)"),
    (
        "export.name",
        "my model",
        "export.name: String should match pattern '^[A-Za-z][A-Za-z0-9_-]{0,63}$' (it is 'my model')",
    ),
    (
        "train.optimizer",
        "adan",
        "train.optimizer: Input should be 'sgd', 'momentum', 'nesterov', 'adam' or 'adamw' (it is 'adan')",
    ),
    # what does not go together
    ("train.devices", 3, "train: batch_size 64 does not divide among 3 devices"),
    ("split.val", 0.9, "split: val 0.9 and test 0.2 leave no rows to train on"),
    ("split.by", "grup", "split.by: there is no split by 'grup': did you mean 'group'?"),
    ("split.by", "time", "split.column must name the column that holds the time, since split.by is time"),
    ("split.colum", "day", "split.colum is unknown: did you mean 'column'?"),
    ("split.column", "day", "split.column is 'day', which a split by hash does not use: set it to none"),
    (
        "gate.robustness",
        {"imag": {"flip": {"max_changed": 0.0}}},
        "gate.robustness.imag: there is no such column or kind: did you mean 'image'?",
    ),
    (
        "gate.robustness",
        {"image": {"flop": {"max_changed": 0.0}}},
        "gate.robustness.image.flop: there is no such change: did you mean 'flip'?",
    ),
    (
        "gate.robustness",
        {"image": {"flip": {"by": 0.1, "max_changed": 0.0}}},
        "gate.robustness.image.flip.by: this change has no size: delete it",
    ),
    (
        "gate.robustness",
        {"image": {"shift": {"max_changed": 0.0}}},
        "gate.robustness.image.shift.by must be above 0 and at most 0.5, not 0",
    ),
    (
        "gate.robustness",
        {"image": {"shift": {"by": 0.6, "max_changed": 0.0}}},
        "gate.robustness.image.shift.by must be above 0 and at most 0.5, not 0.6",
    ),
    (
        "gate.robustness",
        {"image": {"flip": {"max_changed": 0.0, "bye": 1}}},
        "gate.robustness.image.flip.bye is unknown: did you mean 'by'?",
    ),
    ("gate.thresholds.accuracy", {}, "gate.thresholds.accuracy: give min, max or both"),
    ("gate.thresholds.accuracy.max", 0.1, "gate.thresholds.accuracy: min 0.95 is over max 0.1"),
    (
        "gate.slices",
        {"lable": {"margins": {"f1": 0.1}}},
        "gate.slices.lable: there is no such column or fact",
    ),
    (
        "gate.slices",
        {"image": {"margins": {"f1": 0.1}}},
        "gate.slices.image: there is no such column or fact",
    ),
    ("gate.slices", {"label": {}}, "gate.slices.label: give thresholds, margins or both"),
    ("gate.slices", {"label": {"min_row": 9}}, "gate.slices.label.min_row is unknown: did you mean 'min_rows'?"),
    (
        "gate.slices.label.thresholds.accuracy.mn",
        1,
        "gate.slices.label.thresholds.accuracy.mn is unknown: did you mean",
    ),
    ("schema.keep", ["label"], "schema.keep: the column 'label' is listed twice, or is a feature or the target"),
    # columns
    ("schema.features.image", "imgae", "schema.features.image.kind: there is no kind 'imgae': did you mean 'image'?"),
    ("schema.target.label", "image", "schema.target.label.kind: there is no kind 'image': "),
    (
        "schema.features.image",
        {"height": 8},
        "schema.features.image.kind is missing: write `image: KIND`, one of ",
    ),
    (
        "schema.features.image",
        {"kind": "image", "hieght": 8},
        "schema.features.image.hieght is unknown: did you mean 'height'?",
    ),
    (
        "schema.features.image",
        {"kind": "image", "max_side": "8"},
        "schema.features.image.max_side: Input should be a valid integer (it is '8')",
    ),
    (
        "schema.features.image",
        {"kind": "number", "missing": "med"},
        "schema.features.image: missing must be learned, mean, median or a finite number, not 'med'",
    ),
    (
        "schema.features.image",
        {"kind": "number", "scale": "quantiles"},
        "schema.features.image.scale: Input should be 'standard' or 'quantile' (it is 'quantiles')",
    ),
    (
        "schema.features.image",
        {"kind": "image", "height": 8},
        "schema.features.image: give both height and width",
    ),
    ("schema.features.label", "image", "schema: the column 'label' is both a feature and the target"),
    (
        "schema.features._id",
        "image",
        "schema: the column name '_id' begins with an underscore, which is reserved for the table's own",
    ),
    (
        "schema.features.release",
        "image",
        "schema: 'release' is an output of every served model: rename that column",
    ),
    (
        "schema.features",
        {"image": "image", "image.width": "image"},
        "schema: the column name 'image.width' looks like a fact about 'image': rename it",
    ),
    # paths and formats
    ("data.format", "image_foldr", "data.format: there is no format 'image_foldr': did you mean 'image_folder'?"),
    *(
        (
            "data.path",
            path,
            f"data.path: {path!r} is not in data/raw/: bring it there with `millrace data add {path}`",
        )
        for path in ("/home/me/cats", "data/raw", "data/raw/../../cats", "data/table/cats", "../data/raw/cats")
    ),
    *(
        ("data.path", path, f"data.path: {path!r} must consist of letters, digits, '.', '_', '-' and '/': rename it")
        for path in ("data/raw/my cats", "data/raw/cats;ls", "data/raw/$HOME")
    ),
]


@pytest.mark.parametrize(("key", "value", "words"), MISTAKES)
def test_a_mistake_is_reported_with_its_key(project, key, value, words):
    put(key, value)
    assert fault().startswith(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [", "line 2: did not find expected node content"),
        ("train: 1\ntrain: 2\n", """line 2: found duplicate key "train" with value "2" (original value: "1")"""),
        ("", "is empty: `git checkout params.yaml` restores it"),
        ("- train", "has no sections: `git checkout params.yaml` restores it"),
    ],
)
def test_a_file_that_is_not_params_is_an_error(project, text, words):
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert fault() == words


def test_a_missing_file_is_an_error(project):
    Path("params.yaml").unlink()
    assert fault() == "cannot be read: [Errno 2] No such file or directory: 'params.yaml'"


def test_several_mistakes_are_reported_at_once(project):
    put("train.epochs", 0)
    put("split", GONE)
    message = fault()
    assert "split is missing; train.epochs: Input should be greater" in message


def new_kind(project, monkeypatch, name, kind, view=""):
    """Add a kind to this process: the text of its module, and of its view's."""
    for package, text in ((stages.schema.kinds, kind), (stages.schema.views, view)):
        folder = project / package.__name__
        folder.mkdir()
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        if text:
            (folder / f"{name}.py").write_text(text, encoding="utf-8")


WORD = "from stages.schema.kinds.category import *\nfrom stages.schema.kinds.category import Options\nPACKED = True\n"


def test_two_blocks_of_the_same_name_are_an_error(project, monkeypatch):
    new_kind(project, monkeypatch, "pack", WORD, "from stages.schema.views.category import *\n")
    put("schema.features", {"a": "pack", "pack": "image"})
    assert fault() == "schema: the column 'pack' has the name of a kind whose columns travel together: rename it"


def test_a_kind_that_lacks_a_part_is_an_error(project, monkeypatch):
    new_kind(project, monkeypatch, "half", "RAW, PACKED, OPTIONAL, ENCODER = 'str', True, True, 'embedding'\n")
    put("schema.features", {"a": "half"})
    lacking = "Options, raw, facts, fit, transform, tensor"
    assert fault() == f"schema: stages/schema/kinds/half.py lacks {lacking}: see what the other files there have"


@pytest.mark.parametrize(("view", "words"), [("", "is missing"), ("def likely(values): ...", "lacks draw")])
def test_a_kind_without_a_whole_view_is_an_error(project, monkeypatch, view, words):
    name = f"kind{len(view)}"
    new_kind(project, monkeypatch, name, WORD, view)
    put("schema.features", {"a": name})
    assert fault().startswith(f"schema: stages/schema/views/{name}.py {words}: see")


@pytest.mark.parametrize(("written", "value"), [("1e-3", 0.001), ("3E-4", 0.0003), ("1", 1.0), ("0.5", 0.5)])
def test_numbers_are_read_as_dvc_reads_them(project, written, value):
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert "learning_rate: 0.003" in text
    Path("params.yaml").write_text(text.replace("learning_rate: 0.003", f"learning_rate: {written}"), encoding="utf-8")
    assert params.parse().train.learning_rate == value


def test_the_short_form_of_a_column_equals_the_long_one(project):
    short = params.parse().schema_.unfitted()
    put("schema.features.image", {"kind": "image"})
    assert params.parse().schema_.unfitted() == short


def test_a_split_by_strata_needs_a_target_with_strata(project, monkeypatch):
    put("split.by", "strata")
    params.parse()
    monkeypatch.delattr("stages.schema.kinds.target_class.strata")
    assert fault() == "split.by: the kind of the target 'label' has no strata: use hash"


def test_a_batch_that_divides_among_devices_is_valid(project):
    put("train.devices", 4)
    assert params.parse().train.devices == 4


def test_a_stage_sees_the_parameters_listed_for_it(project):
    listed = params.load("train")
    assert listed.train.epochs == params.parse().train.epochs
    assert listed.model.trunk == params.parse().model.trunk
    assert params.values(params.load("prepare")) == {
        "schema.features": {"image": {"kind": "image"}},
        "schema.target": {"label": {"kind": "class"}},
        "split.by": "hash",
        "split.column": "none",
        "split.val": 0.1,
        "split.test": 0.2,
    }


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        ("gate", "train"),
        ("gate", "train.epochs"),
        ("verify", "export.name"),
        ("evaluate", "schema"),
        ("train", "data.path"),
    ],
)
def test_a_stage_sees_no_other_parameters(project, stage, key):
    listed = params.load(stage)
    with pytest.raises(AttributeError, match=rf"dvc.yaml does not list '[\w.]+' under the params of '{stage}'"):
        for name in key.split("."):
            listed = getattr(listed, name)


def test_a_stage_checks_the_whole_file(project):
    put("gate.p99_ms", -1)
    with pytest.raises(UserError, match=r"gate.p99_ms"):
        params.load("train")


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
    assert params.parse().validate_.columns["label"] == {"labels": ["no", "7"]}


def test_an_unknown_preset_is_an_error(project):
    with pytest.raises(UserError, match="there is no preset 'fashion-minst'"):
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
