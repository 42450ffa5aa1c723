"""Each mistake in params.yaml is reported with its key and how to correct it."""

from __future__ import annotations

from pathlib import Path

import pytest

import stages.schema.kinds
import stages.schema.views
from stages.settings import params
from tests.support.parameters import GONE, fault, in_folder, put


@pytest.fixture
def project(tmp_path, monkeypatch):
    return in_folder(tmp_path, monkeypatch)


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
    # contradictions
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
        "schema: the column name '_id' begins with an underscore, reserved for the table's own",
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
    """Add a kind to this process, given the text of its module and of its view."""
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
    assert fault() == "schema: the column 'pack' has the name of a kind whose columns form one array: rename it"


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


def test_a_split_by_strata_needs_a_target_with_strata(project, monkeypatch):
    put("split.by", "strata")
    params.parse()
    monkeypatch.delattr("stages.schema.kinds.target_class.strata")
    assert fault() == "split.by: the kind of the target 'label' has no strata: use hash"
