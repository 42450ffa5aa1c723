"""Each mistake in params.yaml is reported with its key and how to correct it."""

from __future__ import annotations

from pathlib import Path

import pytest

import stages.schema.kinds
import stages.schema.views
from stages.settings import params
from tests.support.parameters import GONE, in_folder, mistaken, put


@pytest.fixture
def project(tmp_path, monkeypatch):
    return in_folder(tmp_path, monkeypatch)


MISTAKES = [
    (
        "gate.approval",
        ["acuracy"],
        ("params-unknown-criterion", "gate: approval", "acuracy", "accuracy"),
    ),
    ("gate.approval", ["parity"], ("params-unknown-criterion", "gate: approval", "parity")),
    # unknown and missing
    ("train.epoks", 3, ("params-unknown-key", "train.epoks", "epochs")),
    ("trian", {}, ("params-unknown-key", "trian", "train")),
    ("gate.thresholds.accuracy.mn", 0.5, ("params-unknown-key", "gate.thresholds.accuracy.mn", "min")),
    ("validate.columns", {"imag": {}}, ("params-unknown-column", "validate.columns.imag", "image")),
    (
        "validate.columns",
        {"image": {"min_sid": 3}},
        ("params-unknown-key", "validate.columns.image.min_sid", "min_side"),
    ),
    (
        "validate.columns",
        {"image": {"min_side": "3"}},
        ("params-wrong-type", "validate.columns.image.min_side"),
    ),
    (
        "validate.columns",
        {"label": {"min_distinct": 3}},
        ("params-other-kind", "validate.columns.label.min_distinct"),
    ),
    ("gate.drift.max_distanse", 0.2, ("params-unknown-key", "gate.drift.max_distanse", "max_distance")),
    ("gate.drift.max_distance", 1.2, ("params-out-of-range", "gate.drift.max_distance", "1.2")),
    (
        "gate.drift.columns",
        {"image.brightnes": 0.5},
        ("params-unknown-column", "gate.drift.columns.image.brightnes", "image.brightness"),
    ),
    ("gate", GONE, ("params-missing-key", "gate")),
    ("train.epochs", GONE, ("params-missing-key", "train.epochs")),
    # types
    ("train", None, ("params-wrong-type", "train")),
    ("train.epochs", "three", ("params-wrong-type", "train.epochs", "'three'")),
    ("train.epochs", 3.5, ("params-wrong-type", "train.epochs", "3.5")),
    ("train.epochs", True, ("params-wrong-type", "train.epochs", "True")),
    ("train.precision", 32, ("params-unknown-choice", "train.precision", "32")),
    ("model.freeze_encoders", 1, ("params-wrong-type", "model.freeze_encoders", "1")),
    ("schema.features", None, ("params-wrong-type", "schema.features")),
    # ranges
    ("train.epochs", 0, ("params-out-of-range", "train.epochs", "0")),
    ("train.learning_rate", float("nan"), ("params-invalid-value", "train.learning_rate", "nan")),
    ("validate.max_rejected", 1.5, ("params-out-of-range", "validate.max_rejected", "1.5")),
    (
        "export.name",
        "my model",
        ("params-invalid-value", "export.name", "'my model'"),
    ),
    (
        "train.optimizer",
        "adan",
        ("params-unknown-choice", "train.optimizer", "'adan'"),
    ),
    # contradictions
    ("train.devices", 3, ("params-uneven-batch", "train", "64", "3")),
    ("split.val", 0.9, ("params-no-training-rows", "split", "0.9", "0.2")),
    ("split.by", "grup", ("params-unknown-split", "split.by", "grup", "group")),
    ("split.by", "time", ("params-split-column", "split.column")),
    ("split.colum", "day", ("params-unknown-key", "split.colum", "column")),
    ("split.column", "day", ("params-split-column", "split.column", "day")),
    (
        "gate.robustness",
        {"imag": {"flip": {"max_changed": 0.0}}},
        ("params-unknown-column", "gate.robustness.imag", "image"),
    ),
    (
        "gate.robustness",
        {"image": {"flop": {"max_changed": 0.0}}},
        ("params-unknown-perturbation", "gate.robustness.image.flop", "flip"),
    ),
    (
        "gate.robustness",
        {"image": {"flip": {"by": 0.1, "max_changed": 0.0}}},
        ("params-perturbation-size", "gate.robustness.image.flip.by"),
    ),
    (
        "gate.robustness",
        {"image": {"shift": {"max_changed": 0.0}}},
        ("params-perturbation-size", "gate.robustness.image.shift.by", "0"),
    ),
    (
        "gate.robustness",
        {"image": {"shift": {"by": 0.6, "max_changed": 0.0}}},
        ("params-perturbation-size", "gate.robustness.image.shift.by", "0.6"),
    ),
    (
        "gate.robustness",
        {"image": {"flip": {"max_changed": 0.0, "bye": 1}}},
        ("params-unknown-key", "gate.robustness.image.flip.bye", "by"),
    ),
    ("gate.thresholds.accuracy", {}, ("params-empty-bound", "gate.thresholds.accuracy")),
    ("gate.thresholds.accuracy.max", 0.1, ("params-crossed-bound", "gate.thresholds.accuracy", "0.95", "0.1")),
    (
        "gate.slices",
        {"lable": {"margins": {"f1": 0.1}}},
        ("params-unknown-column", "gate.slices.lable"),
    ),
    (
        "gate.slices",
        {"image": {"margins": {"f1": 0.1}}},
        ("params-unknown-column", "gate.slices.image"),
    ),
    ("gate.slices", {"label": {}}, ("params-empty-bound", "gate.slices.label")),
    ("gate.slices", {"label": {"min_row": 9}}, ("params-unknown-key", "gate.slices.label.min_row", "min_rows")),
    (
        "gate.slices.label.thresholds.accuracy.mn",
        1,
        ("params-unknown-key", "gate.slices.label.thresholds.accuracy.mn"),
    ),
    ("schema.keep", ["label"], ("params-repeated-column", "schema.keep", "label")),
    # columns
    ("schema.features.image", "imgae", ("params-unknown-kind", "schema.features.image.kind", "imgae", "image")),
    ("schema.target.label", "image", ("params-unknown-kind", "schema.target.label.kind", "image")),
    (
        "schema.features.image",
        {"height": 8},
        ("params-missing-key", "schema.features.image.kind"),
    ),
    (
        "schema.features.image",
        {"kind": "image", "hieght": 8},
        ("params-unknown-key", "schema.features.image.hieght", "height"),
    ),
    (
        "schema.features.image",
        {"kind": "image", "max_side": "8"},
        ("params-wrong-type", "schema.features.image.max_side", "'8'"),
    ),
    (
        "schema.features.image",
        {"kind": "number", "missing": "med"},
        ("params-invalid-value", "schema.features.image", "'med'"),
    ),
    (
        "schema.features.image",
        {"kind": "number", "scale": "quantiles"},
        ("params-unknown-choice", "schema.features.image.scale", "'quantiles'"),
    ),
    (
        "schema.features.image",
        {"kind": "image", "height": 8},
        ("params-invalid-value", "schema.features.image"),
    ),
    ("schema.features.label", "image", ("params-repeated-column", "schema", "label")),
    (
        "schema.features._id",
        "image",
        ("params-reserved-column", "schema", "_id"),
    ),
    (
        "schema.features.release",
        "image",
        ("params-reserved-column", "schema", "release"),
    ),
    (
        "schema.features",
        {"image": "image", "image.width": "image"},
        ("params-reserved-column", "schema", "image.width", "image"),
    ),
    # paths and formats
    ("data.format", "image_foldr", ("params-unknown-format", "data.format", "image_foldr", "image_folder")),
    *(
        (
            "data.path",
            path,
            ("params-data-elsewhere", "data.path", path),
        )
        for path in ("/home/me/cats", "data/raw", "data/raw/../../cats", "data/table/cats", "../data/raw/cats")
    ),
    *(
        ("data.path", path, ("params-data-name", "data.path", path))
        for path in ("data/raw/my cats", "data/raw/cats;ls", "data/raw/$HOME")
    ),
]


@pytest.mark.parametrize(("key", "value", "expected"), MISTAKES)
def test_a_mistake_is_reported_with_its_key(project, key, value, expected):
    put(key, value)
    mistaken(*expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: [", ("params-not-yaml", "line 2")),
        ("train: 1\ntrain: 2\n", ("params-not-yaml", "line 2", "train")),
        ("", ("params-empty", "`git checkout params.yaml`")),
        ("- train", ("params-empty", "`git checkout params.yaml`")),
    ],
)
def test_a_file_that_is_not_params_is_an_error(project, text, expected):
    Path("params.yaml").write_text(text, encoding="utf-8")
    mistaken(*expected)


def test_a_missing_file_is_an_error(project):
    Path("params.yaml").unlink()
    mistaken("params-unreadable")


def test_several_mistakes_are_reported_at_once(project):
    put("train.epochs", 0)
    put("split", GONE)
    mistaken("params-missing-key", "split", "train.epochs")


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
    mistaken("params-invalid-value", "schema", "'pack'")


def test_a_kind_that_lacks_a_part_is_an_error(project, monkeypatch):
    new_kind(project, monkeypatch, "half", "RAW, PACKED, OPTIONAL, ENCODER = 'str', True, True, 'embedding'\n")
    put("schema.features", {"a": "half"})
    mistaken("params-invalid-value", "stages/schema/kinds/half.py", "Options, raw, facts, fit, transform, tensor")


@pytest.mark.parametrize(("view", "words"), [("", "is missing"), ("def likely(values): ...", "lacks draw")])
def test_a_kind_without_a_whole_view_is_an_error(project, monkeypatch, view, words):
    name = f"kind{len(view)}"
    new_kind(project, monkeypatch, name, WORD, view)
    put("schema.features", {"a": name})
    mistaken("params-invalid-value", f"stages/schema/views/{name}.py {words}")


def test_a_split_by_strata_needs_a_target_with_strata(project, monkeypatch):
    put("split.by", "strata")
    params.parse()
    monkeypatch.delattr("stages.schema.kinds.target_class.strata")
    mistaken("params-no-strata", "split.by", "'label'", "hash")
