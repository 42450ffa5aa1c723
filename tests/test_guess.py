"""What is guessed of a table's columns, and what becomes of it in params.yaml."""

from __future__ import annotations

import csv
import json
import random

import pytest

from stages import guess
from stages.errors import UserError
from stages.params import parse

WORDS = ["quiet", "sunny", "old", "large", "garden", "near", "the", "station"]


@pytest.fixture
def houses(tmp_path):
    """A table of 300 rows with a column of each sort."""
    chance = random.Random(0)
    path = tmp_path / "houses.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "area", "rooms", "town", "photo", "notes", "price", "country", "blank"])
        for i in range(300):
            notes = " ".join(chance.choices(WORDS, k=6))
            town = chance.choice(["Ulm", "Bonn", ""])
            area = f"{chance.uniform(20, 200):.1f}" if i % 4 else "?"
            writer.writerow([f"h{i}", area, i % 7, town, f"{i}.jpg", notes, chance.gauss(3e5, 1e5), "DE", ""])
    return path


def test_each_column_finds_its_kind(houses):
    features, target = guess.table(houses, "csv")
    kinds = {column.name: column.kind for column in features}
    assert kinds == {
        "id": "",
        "area": "number",
        "rooms": "category",
        "town": "category",
        "photo": "image",
        "notes": "text",
        "country": "",
        "blank": "",
    }
    notes = {column.name: column.note for column in features if column.note}
    assert notes == {
        "id": "left out: a different word in nearly each row",
        "country": "left out: the same in all rows",
        "blank": "left out: all missing",
    }
    assert (target.name, target.kind) == ("price", "number")
    area = features[1]
    assert 0.2 < area.missing < 0.3 and area.distinct > 100


def test_few_numbers_are_classes(tmp_path):
    (tmp_path / "t.csv").write_text("x,answer\n" + "".join(f"{i}.5,{i % 3}\n" for i in range(90)))
    _, target = guess.table(tmp_path / "t.csv", "csv")
    assert (target.name, target.kind) == ("answer", "class")


def test_json_lines_are_a_table(tmp_path):
    rows = [{"said": "play some music now", "n": i, "intent": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    features, target = guess.table(tmp_path / "t.jsonl", "json")
    assert [column.name for column in features] == ["said", "n"]
    assert (target.name, target.kind) == ("intent", "class")


def test_pictures_are_no_table(tmp_path):
    assert guess.table(tmp_path, "image_folder") is None


def test_a_table_without_a_header_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("1,1,a\n2,3,b\n")
    with pytest.raises(UserError, match="two columns are named '1'"):
        guess.table(tmp_path / "t.csv", "csv")


def test_a_table_that_is_added_is_ready_to_run(fresh, houses):
    said = fresh.millrace("data", "add", str(houses))
    assert "left out: a different word in nearly each row" in said
    assert "the target" in said
    made = parse(fresh.folder / "params.yaml")
    assert made.data.path == "data/raw/houses" and made.data.format == "csv"
    assert list(made.schema_.target) == ["price"]
    assert "params.yaml is sound" in fresh.millrace("check")
    assert "data/raw/houses" in fresh.run("git", "status", "--porcelain", "--untracked-files=all")
