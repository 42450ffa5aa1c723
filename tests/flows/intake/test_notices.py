"""What `data add` says of a table: what all of its rows have, what tells the target, and what its words look like."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flows.intake import guess
from flows.intake.notices import notices
from flows.intake.survey import Counts, look
from stages.tables.sources import delimited


def surveyed(frame, tmp_path, target="", form="csv"):
    """Column -> (kind, note), and all notices, of a table that is written to a file."""
    path = tmp_path / f"t.{form}"
    frame.to_csv(path, index=False) if form == "csv" else frame.to_parquet(path)
    guessed, seen = guess.survey(path, form, target=target)
    columns = {column.name: (column.kind, column.note) for column in [*guessed.features, guessed.target]}
    return columns, notices(guessed, seen)


@pytest.fixture
def rows():
    chance = np.random.default_rng(0)
    amounts = {name: chance.gamma(2, size, 400).round(2) for name, size in (("fare", 9), ("tip", 3), ("tolls", 5))}
    return pd.DataFrame(
        {**amounts, "town": chance.choice(["Ulm", "Bonn"], 400), "y": chance.choice(["no", "yes"], 400)}
    )


def test_rows_that_are_sorted_by_the_target_are_read_to_the_end(tmp_path):
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"a": chance.normal(size=12_000).round(3), "late": [1] * 11_000 + [2] * 1000})
    frame["y"] = ["no"] * 6000 + ["yes"] * 6000
    columns, found = surveyed(frame, tmp_path)
    assert columns == {"a": ("number", ""), "late": ("category", ""), "y": ("class", "the target")}
    assert [notice for notice in found if "sorted by y: their order tells 100% of it" in notice]


def test_all_rows_of_a_large_table_are_counted(tmp_path):
    chance = np.random.default_rng(0)
    count = 200_000
    frame = pd.DataFrame({f"n{place}": chance.normal(size=count).round(4) for place in range(8)})
    frame["town"] = chance.choice(["Ulm", "Bonn", "Kiel"], count)
    frame["n0"] = frame["n0"].astype(object)
    frame.loc[count - 1, "n0"] = "unknown to all"
    frame["y"] = frame["n1"] * 2 + chance.normal(size=count)
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    guessed, seen = guess.survey(path, "csv")
    notices(guessed, seen)
    assert seen.rows == count and seen.counts["n1"].distinct == frame["n1"].astype(str).nunique()
    (column,) = (column for column in guessed.features if column.name == "n0")
    assert (column.kind, column.distinct) == ("number", frame["n0"].astype(str).nunique())
    assert column.note == "1 cells cannot be read: 'unknown to all' is not a number"
    assert 5000 <= len(seen.cells["n1"]) <= 10_000


def test_the_sample_is_spread_over_all_rows(tmp_path):
    pd.DataFrame({"a": range(50_000), "y": [0, 1] * 25_000}).to_csv(tmp_path / "t.csv", index=False)
    seen = look(tmp_path / "t.csv", delimited, delimited.Options(), ["a", "y"])
    assert seen.cells["a"] == [str(number) for number in range(0, 50_000, 8)]


def test_counts_of_chunks_are_added(monkeypatch):
    monkeypatch.setattr("flows.intake.survey.PENDING", 3)
    counts = Counts()
    for chunk in (["1", None, "2"], ["3", "3"], ["x"], [], [4, 5]):
        counts.add(pa.array(chunk))
    assert counts.words() == {"1": 1, "2": 1, "3": 2, "x": 1, "4": 1, "5": 1}
    assert (counts.rows, counts.missing, counts.distinct, counts.running) == (8, 1, 6, False)


def test_a_small_class_and_a_large_one_are_named(rows, tmp_path):
    _, found = surveyed(rows.assign(y=["rare"] * 3 + ["often"] * 397), tmp_path)
    assert found[0].startswith("y: 'rare' (3) of 400 rows: too few to learn from or to test")
    assert found[1].startswith("y: 'often' is 99.2% of all rows") and "class_weights: balanced" in found[1]
    assert surveyed(rows, tmp_path)[1] == []


def test_words_in_two_spellings_are_named(rows, tmp_path):
    rows.loc[:20, "town"] = "ulm"
    rows["y"] = np.where(rows.index % 2, "2", np.where(rows.index % 3, "3", "2.0"))
    _, found = surveyed(rows, tmp_path)
    assert [notice.partition(" differ")[0] for notice in found[:2]] == [
        f"town: 'Ulm' ({sum(rows.town == 'Ulm')}) and 'ulm' (21)",
        f"y: '2' (200) and '2.0' ({sum(rows.y == '2.0')})",
    ]


def test_a_sum_that_is_the_target_is_named_before_anything_is_trained(rows, tmp_path):
    _, found = surveyed(rows.assign(y=rows.fare + rows.tip + rows.tolls), tmp_path)
    assert any(notice.startswith("share of y that the sum fare + tip + tolls tells is 100.00%") for notice in found)


@pytest.mark.parametrize(
    ("name", "value", "kind", "note"),
    [
        ("zip", lambda i: f"{i % 30:05}", "category", "zip codes"),
        ("Zip Code", lambda i: 10_000 + i % 30, "category", "zip codes"),
        ("plz", lambda i: 10_000 + i * i, "", "left out: zip codes in nearly each row"),
        ("branch", lambda i: f"{i % 30:03}", "category", "codes with leading zeros"),
        ("phone", lambda i: f"+49 731 {1000 + i * 7}", "", "left out: phone numbers in nearly each row"),
        ("telephone_no", lambda i: 7_310_000 + i * 7, "", "left out: phone numbers in nearly each row"),
        ("CustomerID", lambda i: 900 + i % 40, "category", "ids"),
        ("order_id", lambda i: 900 + i * i, "", "left out: it only identifies rows"),
        ("telegrams", lambda i: 7_310_000 + i * 7, "number", ""),
        ("zipper_length", lambda i: 10_000 + i * i, "number", ""),
        ("humid", lambda i: i * i, "number", ""),
        ("zeros", lambda i: f"0.{i}", "number", ""),
    ],
)
def test_digits_that_are_no_numbers_are_recognized(name, value, kind, note):
    column = guess.guess_feature(name, [value(i) for i in range(400)])
    assert (column.kind, column.note) == (kind, note)


def test_an_index_that_pandas_wrote_is_left_out(rows, tmp_path):
    rows.to_csv(tmp_path / "t.csv")
    features, target, _, _ = guess.table(tmp_path / "t.csv", "csv")
    assert [(column.name, column.kind) for column in features] == [
        *((name, "number") for name in ("fare", "tip", "tolls")),
        ("town", "category"),
        ("(no name)", ""),
    ]
    assert "index=False" in features[-1].note and target.name == "y"
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "u.csv", index=False)  # as "Unnamed: 0"
    assert guess.table(tmp_path / "u.csv", "csv").features[0].note == features[-1].note
    rows[rows.tip > 2].to_parquet(tmp_path / "t.parquet")
    features, target, _, _ = guess.table(tmp_path / "t.parquet", "parquet")
    assert {column.name: column.note for column in features}["__index_level_0__"] == features[-1].note
    assert target.name == "y" and "pandas" in features[-1].note


def test_columns_without_a_name_at_the_ends_are_not_read(tmp_path):
    lines = "".join(f"{i},{i % 7}.5,{'ab'[i % 2]},,\n" for i in range(60))
    (tmp_path / "t.csv").write_text(",area,y,,\n" + lines)
    features, target, _, _ = guess.table(tmp_path / "t.csv", "csv")
    assert [column.name for column in features] == ["area", *["(no name)"] * 3]
    assert [column.kind for column in features[1:]] == [""] * 3
    assert target.kind == "class" and features[-1].note == "left out: it has no name"
