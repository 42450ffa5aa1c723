"""Whole numbers, booleans and times that are words have one spelling, in training and in what a server is sent."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from serving.client.inputs import TableFormat, table
from serving.client.model_info import Served
from serving.client.request import Request
from stages.schema import Column, Schema, spelling
from stages.schema.kinds import category, target_class


@pytest.mark.parametrize(
    ("training", "sent", "code_of"),
    [
        (["1", "2", "3"], ["2.0", "2.00", 2, 2.0, np.float32(2)], "2"),
        (["1.0", "2.0"], ["2", 2], "2.0"),
        (["1", "2", "other"], ["2.0"], "2"),
        (["0", "1"], [-0.0, "-0", "0.0"], "0"),
        (["-7", "7"], [-7.0], "-7"),
        (["TRUE", "FALSE"], [True, "true", "True", np.True_], "TRUE"),
        (["true", "false", "?"], [False, "FALSE"], "false"),
        (["2024-12-31", "2025-01-01"], ["2024-12-31 00:00:00", pd.Timestamp("2024-12-31")], "2024-12-31"),
        (["2024-12-31", "x"], [datetime.date(2024, 12, 31), np.datetime64("2024-12-31T00:00", "ns")], "2024-12-31"),
        (["2024-12-31 08:00", "2024-12-31 09:00"], ["2024-12-31T08:00:00.000"], "2024-12-31 08:00"),
        (["2024-12-31T08:00Z", "x"], ["2024-12-31 08:00:00+00:00"], "2024-12-31T08:00Z"),
        ([str(2**53), "1"], [float(2**53)], str(2**53)),
    ],
)  # fmt: skip
def test_other_spellings_of_a_word_have_its_code(training, sent, code_of):
    fitted = json.loads(json.dumps(category.fit([training * 2], category.Options())))
    codes = category.transform([category.raw(value) for value in [code_of, *sent]], fitted)[:, 0].tolist()
    assert codes[0] > category.UNKNOWN
    assert codes == codes[:1] * len(codes)


@pytest.mark.parametrize(
    ("training", "sent"),
    [
        (["02134", "10001"], ["2134", "10001.0", "002134"]),  # zip codes
        (["1", "2"], ["02", "2.5", "+2", "2e0", "\u0662", "\uff12"]),
        (["1.1", "1.10", "2"], ["2.0"]),  # versions
        (["1", "1.0", "1.5"], ["1.50"]),
        (["+4912345", "+4954321"], ["4912345"]),
        ([str(2**53 + 1), "1"], [f"{2**53 + 1}.0", str(float(2**53 + 1))]),  # no float holds it
        (["1e3", "5"], ["1000", "5.0"]),
        (["yes", "no"], ["Yes", "True"]),
        (["Ulm", "Bonn"], ["ulm", "2.0"]),
    ],
)
def test_words_that_only_look_alike_are_not_one(training, sent):
    fitted = category.fit([training * 2], category.Options())
    assert len(fitted["codes"]) == len(training)
    assert (category.transform(sent, fitted) == category.UNKNOWN).all()


def test_spellings_in_the_training_data_are_counted_together():
    fitted = category.fit([["2", "3", "3.0"] * 2 + ["2.0"] * 3 + ["4"]], category.Options())
    assert fitted == {"codes": {"2": 2, "3": 3}, "buckets": 0, "size": 4, "spelling": ["number"]}
    shared = category.fit([["1", "2"]], category.Options(buckets=50))
    assert category.transform(["77"], shared) == category.transform(["77.0"], shared)


def test_a_schema_without_rules_reads_words_as_they_are():
    """As in a release made before there were rules."""
    fitted = category.fit([["1", "2"] * 2], category.Options())
    before = {name: value for name, value in fitted.items() if name != "spelling"}
    assert category.transform(["2.0"], fitted) > category.UNKNOWN
    assert category.transform(["2.0"], before) == category.UNKNOWN


def test_labels_in_several_spellings_are_one_class():
    fitted = target_class.fit([["2.0", "10", "2.0", "2"], ["3.0"]], target_class.Options())
    assert fitted == {"labels": ["10", "2", "3.0"], "counts": [1, 3, 1], "spelling": ["number"]}
    assert target_class.transform(["2", "2.0"], fitted).tolist() == [1, 1]
    mixed = target_class.fit([["TRUE", "True", "TRUE", "false"]], target_class.Options())
    assert mixed["labels"] == ["TRUE", "false"] and mixed["counts"] == [3, 1]
    with pytest.raises(ValueError, match=r"no training sample is labeled 4\.0"):
        target_class.transform(["2", "4.0"], fitted)


def test_labels_that_have_one_spelling_keep_it():
    for labels in (["1.0", "2.0"], ["False", "True"], ["007", "7"], ["a", "b"]):
        assert target_class.fit([labels], target_class.Options())["labels"] == labels


@pytest.fixture
def served() -> Served:
    """A model of `grade`, a category of whole numbers, as a server describes it."""
    rows = {"grade": ["1", "2", "3"] * 4, "x": ["a", "b", "c", "d"] * 3}
    features = tuple(
        Column(name, "category", {}, category.fit([words], category.Options())) for name, words in rows.items()
    )
    fitted = Schema(features, Column("y", "target_class", {}, target_class.fit([["a", "b"]], target_class.Options())))
    return Served(Schema.parse(fitted.public().text()), 8, "m_0123456789ab")  # fmt: skip


def test_a_column_that_became_float_for_one_blank_is_known(served, tmp_path: Path):
    frame = pd.DataFrame({"grade": [1, 2, None, 3], "x": ["a"] * 4})
    assert frame["grade"].dtype == float
    frame.to_csv(tmp_path / "t.csv", index=False)
    (by_frame,) = Request(frame, served).batches
    by_file = [served.raw(row) for _, row, _ in table(tmp_path / "t.csv", "csv", served, TableFormat())]
    assert by_frame.raw["grade"] == [row["grade"] for row in by_file] == ["1.0", "2.0", None, "3.0"]
    assert served.unknown_words(by_frame.raw) == [{}, {}, {}, {}]


def test_an_answer_counts_the_words_that_the_model_does_not_know(served):
    raw = {"grade": ["2", "9", None, "3.5"], "x": ["a", "zzz", "", "b"]}
    assert served.unknown_words(raw) == [{}, {"grade": 1, "x": 1}, {}, {"grade": 1}]
    answers = served.answers({"probabilities": np.full((4, 2), 0.5, np.float32)}, raw=raw)
    assert [answer.get("unknown_words") for answer in answers] == [None, {"grade": 1, "x": 1}, None, {"grade": 1}]
    frame = Request(pd.DataFrame(raw), served).result(answers)
    assert list(frame.columns) == ["label", "probability", "release"]
    assert frame.attrs == {"unknown_words": {"grade": 2, "x": 1}}


def test_what_cannot_be_told_is_not_counted():
    """Of a release made before, of words that share buckets, and of a very large vocabulary."""
    assert category.unknown({}) is None
    assert category.unknown(category.public(category.fit([["a", "b"]], category.Options(buckets=5)))) is None
    large = category.fit([map(str, range(category.MOST_PUBLIC + 1))], category.Options(max_size=10**6, min_count=1))
    assert category.public(large) == {}


def test_a_rule_is_idempotent():
    for word in ("2.0", "-0.0", "TRUE", "2024-12-31T00:00", "2024-12-31 08:00:00.500+00:00"):
        names = spelling.rules([word])
        once = spelling.canonical(word, names)
        assert names and once != word and spelling.canonical(once, names) == once
