"""Numbers, categories and target numbers: reading, fitting, errors and expectations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stages.schema.kinds import category, number, target_number
from stages.validation.expectations import category as category_expectations
from stages.validation.expectations import number as number_expectations
from stages.validation.expectations import target_number as target_expectations


@pytest.mark.parametrize(
    ("value", "read"),
    [("3.5", 3.5), (" -2 ", -2.0), ("1e-3", 0.001), (7, 7.0), (np.float32(0.5), 0.5)],
)
def test_numbers_are_read(value, read):
    assert number.raw(value) == read


@pytest.mark.parametrize("value", [None, "", "  ", "nan", math.nan])
def test_blank_and_nan_are_missing_numbers(value):
    assert number.raw(value) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1,234.5", "'1,234.5' is not a number: write 1234.5"),
        ("1 000", "'1 000' is not a number: write 1000"),
        ("1,234,567", "is not a number: write 1234567"),
        ("1,5", "'1,5' is not a number: write 1.5"),
        ("twelve", "'twelve' is not a number"),
        ("inf", "'inf' is not a finite 32-bit number"),
        ("-Infinity", "is not a finite 32-bit number"),
        (1e39, "1e+39 is not a finite 32-bit number"),
        ("=1+1", "'=1+1' is not a number"),
        ("x" * 100, "... is not a number"),
        ([1], "is not a number"),
        (True, "True is not a number: write 1, or declare the column a category"),
        (np.False_, "False is not a number: write 0, or"),
    ],
)
def test_values_that_are_not_numbers_are_an_error(value, words):
    with pytest.raises(ValueError) as caught:
        number.raw(value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 80


def test_a_number_is_fitted_to_the_values_that_are_not_missing():
    fitted = number.fit([[1.0, None, 3.0], [math.nan, 5.0]], number.Options())
    assert fitted["mean"] == 3.0
    assert fitted["std"] == pytest.approx(np.std([1, 3, 5]))
    assert fitted["knots"][0] == 1.0 and fitted["knots"][-1] == 5.0
    assert json.loads(json.dumps(fitted)) == fitted


def test_the_order_of_the_rows_does_not_matter():
    values = np.random.default_rng(0).normal(size=1000).tolist()
    assert number.fit([values], number.Options()) == number.fit([values[:300], values[:299:-1]], number.Options())


def test_fitting_only_missing_numbers_is_an_error():
    with pytest.raises(ValueError, match=r"every training value is missing: take the column out of schema\.features"):
        number.fit([[None, None]], number.Options())
    constant = number.fit([[2.0, 2.0]], number.Options())
    assert constant["std"] == 1.0 and constant["knots"] == [2.0]


def test_numbers_become_an_array():
    array = number.transform([1.5, None, -2.0], {})
    assert array.dtype == np.float32 and array.shape == (3, 1)
    assert array[0] == 1.5 and math.isnan(array[1, 0])
    assert number.transform([], {}).shape == (0, 1)
    with pytest.raises(ValueError, match="not finite in 32 bits"):
        number.transform([math.inf], {})


@pytest.mark.parametrize(("missing", "fill"), [("mean", 4.0), ("median", 2.0), (0.5, 0.5), (-1, -1.0)])
def test_the_replacement_for_a_missing_number(missing, fill):
    known = [1.0, 2.0, None, 9.0]
    fitted = number.fit([known], number.Options(missing=missing))
    assert fitted == number.fit([known], number.Options()) | {"fill": fill}


@pytest.mark.parametrize("missing", ["meen", math.nan, math.inf, -1e300])
def test_an_invalid_replacement_for_a_missing_number_is_an_error(missing):
    with pytest.raises(ValueError, match="missing must be learned, mean, median or a finite number, not "):
        number.Options(missing=missing)


def test_scores_are_the_normal_deviates_of_the_quantiles():
    from sklearn.preprocessing import QuantileTransformer

    values = np.random.default_rng(0).lognormal(size=(2000, 1)).astype(np.float32)
    fitted = number.fit([values[:, 0].tolist()], number.Options(scale="quantile"))
    scikit = QuantileTransformer(n_quantiles=number.KNOTS + 1, output_distribution="normal").fit(values)
    expected = scikit.transform(np.array(fitted["knots"])[:, None])[:, 0]
    assert np.allclose(fitted["scores"][1:-1], expected[1:-1], atol=1e-4)
    assert fitted["scores"] == sorted(fitted["scores"]) and -fitted["scores"][0] == fitted["scores"][-1] < 3
    tied = number.fit([[0.0] * 33 + [1.0] * 32], number.Options(scale="quantile"))
    assert tied["scores"] == pytest.approx([-0.6745, 0.6992], abs=1e-4)  # deviates of 16 / 64 and 48.5 / 64
    assert number.fit([[2.0, 2.0]], number.Options(scale="quantile"))["scores"] == [0.0]


def test_words_have_codes_by_frequency_and_rare_ones_are_unknown():
    fitted = category.fit([["b", "a", "b", None], ["c", "a", "b", ""]], category.Options())
    assert fitted == {"codes": {"b": 2, "a": 3}, "buckets": 0, "size": 4}
    codes = category.transform(["a", "b", "c", "new", None, ""], fitted)
    assert codes.dtype == np.int32
    assert codes[:, 0].tolist() == [3, 2, 1, 1, 0, 0]


def test_equally_frequent_words_are_in_alphabetical_order():
    one = category.fit([["b", "a", "c"] * 2], category.Options())
    assert one == category.fit([["c", "b", "a"] * 2], category.Options())
    assert list(one["codes"]) == ["a", "b", "c"]


def test_more_words_than_codes_share_buckets():
    words = [f"w{i}" for i in range(50)] * 2
    fitted = category.fit([words], category.Options(max_size=10, buckets=7))
    codes = category.transform(words, fitted)[:, 0]
    assert fitted["size"] == 2 + 10 + 7 and codes.max() < fitted["size"]
    assert len({int(code) for code in codes if code >= 12}) == 7
    assert category.transform(["w49"], fitted) == category.transform(["w49"], json.loads(json.dumps(fitted)))


@pytest.mark.parametrize(("value", "read"), [("a", "a"), (3, "3"), ("", None), (None, None), (math.nan, None)])
def test_words_are_read(value, read):
    assert category.raw(value) == read


def test_invalid_options_of_a_category_are_an_error():
    with pytest.raises(ValueError, match="max_size must be at least 1, not 0"):
        category.Options(max_size=0)


def test_a_target_number_is_fitted_and_predicted():
    fitted = target_number.fit([[1.0, 3.0], [5.0]], target_number.Options())
    array = target_number.transform([2.0, 4.0], fitted)
    assert array.dtype == np.float32 and array.tolist() == [[2.0], [4.0]]
    outputs = {"value": array, "interval": np.array([[1.0, 3.0], [3.0, 5.0]], np.float32)}
    assert target_number.predictions(outputs, fitted) == [
        {"value": 2.0, "low": 1.0, "high": 3.0},
        {"value": 4.0, "low": 3.0, "high": 5.0},
    ]
    assert {tensor.scale for tensor in target_number.outputs(fitted).values()} == {fitted["std"]}
    with pytest.raises(ValueError, match="coverage must be between 0 and 1, not 1"):
        target_number.Options(coverage=1)
    with pytest.raises(ValueError, match="every training row has the same value: there is nothing to learn"):
        target_number.fit([[2.0, 2.0]], target_number.Options())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: number_expectations.Options(min=3, max=2), "min 3 is over max 2"),
        (lambda: number_expectations.Options(max_missing=2), "max_missing must be between 0 and 1, not 2"),
        (lambda: category_expectations.Options(max_missing=-1), "max_missing must be between 0 and 1, not -1"),
        (lambda: category_expectations.Options(regex="("), "regex '(' is not valid: "),
        (lambda: target_expectations.Options(min=3, max=2), "min 3 is over max 2"),
        (lambda: number_expectations.Options(min_distinct=0), "min_distinct must be at least 1, not 0"),
        (lambda: target_expectations.Options(min_distinct=0), "min_distinct must be at least 1, not 0"),
        (
            lambda: category_expectations.Options(min_distinct=3, max_distinct=2),
            "min_distinct 3 is over max_distinct 2",
        ),
    ],
)
def test_invalid_expectations_are_an_error(options, words):
    with pytest.raises(ValueError) as caught:
        options()
    assert words in str(caught.value)
