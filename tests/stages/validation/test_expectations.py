"""The expectations of each kind, as plain data."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pandas as pd
import pytest

from stages.schema import kind
from stages.settings import choices, sections
from stages.validation import expectations
from stages.validation.expectations import category, image, number, target_class, text, timestamp
from tests.support.failing import failing


def arguments(suite, column):
    return [kwargs for _, kwargs in suite if kwargs["column"] == column]


def test_pictures_have_bounds_on_every_fact_but_brightness():
    suite = image.expectations("photo", image.Options(min_side=32, max_side=64, min_contrast=2.5))
    sides = {"min_value": 32, "max_value": 64}
    assert arguments(suite, "photo.width") == [{"column": "photo.width"}, {"column": "photo.width", **sides}]
    assert arguments(suite, "photo.height") == [{"column": "photo.height", **sides}]
    assert arguments(suite, "photo.frames") == [{"column": "photo.frames", "max_value": 1}]
    assert arguments(suite, "photo.contrast") == [{"column": "photo.contrast", "min_value": 2.5, "strict_min": True}]


def test_modes_that_convert_with_loss_are_not_allowed_unless_listed():
    (by_default,) = arguments(image.expectations("image", image.Options()), "image.mode")
    assert {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B"} <= set(by_default["value_set"])
    assert not {"CMYK", "F", "LAB", "YCbCr", "HSV"} & set(by_default["value_set"])
    (listed,) = arguments(image.expectations("image", image.Options(modes=("RGB", "CMYK"))), "image.mode")
    assert listed["value_set"] == ["RGB", "CMYK"]


def test_labels_are_restricted_only_if_listed():
    names = [name for name, _ in target_class.expectations("label", target_class.Options())]
    assert "expect_column_values_to_be_in_set" not in names
    suite = target_class.expectations("label", target_class.Options(labels=("a", "b"), min_rows=5, min_classes=2))
    assert {"column": "label", "value_set": ["a", "b"]} in arguments(suite, "label")
    (peers,) = arguments(suite, "_peers")
    assert peers["min_value"] == 5


@pytest.mark.parametrize(
    ("module", "options", "expected"),
    [
        (image, {"min_sde": 3}, ("params-unknown-key", "validate.columns.x.min_sde", "'min_side'")),
        (image, {"min_side": 0}, ("params-invalid-value", "min_side 0")),
        (image, {"min_side": 9, "max_side": 8}, ("params-invalid-value", "max_side 8")),
        (image, {"modes": []}, ("params-invalid-value", "modes")),
        (image, {"max_frames": 0}, ("params-invalid-value", "max_frames")),
        (image, {"min_contrast": 128}, ("params-invalid-value", "min_contrast", "128")),
        (image, {"min_side": "8"}, ("params-wrong-type", "validate.columns.x.min_side")),
        (target_class, {"min_rows": 0}, ("params-invalid-value", "min_rows")),
        (target_class, {"min_classes": 0}, ("params-invalid-value", "min_classes")),
        (target_class, {"labels": ["a"]}, ("params-invalid-value", "min_classes")),
        (target_class, {"labels": [1, 2]}, ("params-wrong-type", "validate.columns.x.labels.0")),
    ],
)
def test_a_wrong_option_is_an_error_with_its_key(module, options, expected):
    with failing(ValueError, *expected, "validate.columns.x"):
        sections.options(module, options, "validate.columns.x")


def test_expectations_import_nothing_but_the_standard_library():
    code = (
        "import sys; import stages.validation.expectations.image, stages.validation.expectations.target_class;"
        "print(sorted({'great_expectations', 'pandas', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("module", [number, category, text])
def test_uniqueness_and_distinct_counts_are_expected_if_set(module):
    unique = ("expect_column_values_to_be_unique", {"column": "x"})
    assert unique not in module.expectations("x", module.Options())
    suite = module.expectations("x", module.Options(unique=True, min_distinct=3))
    assert unique in suite
    (distinct,) = (kwargs for name, kwargs in suite if name == "expect_column_unique_value_count_to_be_between")
    assert distinct["min_value"] == 3


@pytest.mark.parametrize("name", sections.feature_kinds())
def test_every_feature_kind_has_all_its_files(name):
    target = {"y": {"kind": sections.target_kinds()[0]}}
    assert sections.declared({"x": {"kind": name}}, target)
    assert expectations.of(name)
    assert importlib.import_module(f"stages.networks.encoders.{kind(name).ENCODER}").Encoder


@pytest.mark.parametrize("name", sections.target_kinds())
def test_every_target_kind_has_all_its_files(name):
    features = {"x": {"kind": sections.feature_kinds()[0]}}
    assert sections.declared(features, {"y": {"kind": name}})
    assert expectations.of(f"target_{name}")
    for package in choices.TARGETS:
        assert importlib.import_module(f"{package}.target_{name}")


@pytest.mark.parametrize(
    ("years", "inferred"),
    [
        ([2010.0, 2024.0, None], {"min_year": 2008, "max_year": 2026, "max_missing": 0.38}),
        ([1.0, 9999.0], {"min_year": 1, "max_year": 9999, "max_missing": 0.05}),
        ([None], {"max_missing": 1.0}),
    ],
)
def test_years_are_inferred_with_a_margin(years, inferred):
    rows = pd.DataFrame({"sold": years, "sold.year": years}, dtype=float)
    assert timestamp.infer("sold", rows) == inferred
    assert sections.options(timestamp, inferred, "validate.columns.sold")
