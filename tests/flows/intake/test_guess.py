"""What is guessed of a table's columns, and what becomes of it in params.yaml."""

from __future__ import annotations

import csv as builtin
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from flows.intake import guess
from flows.intake.add import upcoming
from stages.core.errors import UserError
from stages.schema.kinds import image
from stages.settings.params import parse
from stages.tables.sources import delimited

WORDS = ["quiet", "sunny", "old", "large", "garden", "near", "the", "station"]


@pytest.fixture
def houses(tmp_path):
    """A table of 300 rows with a column of each sort."""
    chance = random.Random(0)
    path = tmp_path / "houses.csv"
    with path.open("w", newline="") as file:
        writer = builtin.writer(file)
        writer.writerow(["code", "area", "rooms", "town", "photo", "notes", "price", "country", "blank", "sold"])
        for i in range(300):
            notes = " ".join(chance.choices(WORDS, k=6))
            town = chance.choice(["Ulm", "Bonn", ""])
            area = f"{chance.uniform(20, 200):.1f}" if i % 4 else "?"
            writer.writerow(
                [
                    f"h{i}",
                    area,
                    i % 7,
                    town,
                    f"{i}.jpg",
                    notes,
                    chance.gauss(3e5, 1e5),
                    "DE",
                    "",
                    f"20{i % 20:02}-01-31",
                ]
            )
    return path


def test_each_column_finds_its_kind(houses):
    features, target, doubts, _ = guess.table(houses, "csv")
    kinds = {column.name: column.kind for column in features}
    assert kinds == {
        "code": "",
        "area": "number",
        "rooms": "category",
        "town": "category",
        "photo": "image",
        "notes": "text",
        "country": "",
        "blank": "",
        "sold": "timestamp",
    }
    notes = {column.name: column.note for column in features if column.note}
    assert notes == {
        "code": "left out: a different word in nearly each row",
        "country": "left out: the same in all rows",
        "blank": "left out: all missing",
    }
    assert (target.name, target.kind, target.note, doubts) == ("price", "number", "the target", [])
    area = features[1]
    assert 0.2 < area.missing < 0.3 and area.distinct > 100


def test_few_numbers_are_classes(tmp_path):
    (tmp_path / "t.csv").write_text("x,answer\n" + "".join(f"{i}.5,{i % 3}\n" for i in range(90)))
    _, target, *_ = guess.table(tmp_path / "t.csv", "csv")
    assert (target.name, target.kind) == ("answer", "class")


def test_json_lines_are_a_table(tmp_path):
    rows = [{"said": "play some music now", "n": i % 7, "intent": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    features, target, *_ = guess.table(tmp_path / "t.jsonl", "json")
    assert [column.name for column in features] == ["said", "n"]
    assert (target.name, target.kind) == ("intent", "class")


@pytest.mark.parametrize("named", [True, False])
def test_pictures_in_the_cells_of_parquet_are_pictures(tmp_path, named):
    """As Hugging Face's data sets hold them, with names, and as bytes alone."""
    raw = [image.raw(np.full((2, 2), grey, np.uint8)) for grey in range(40)]
    cells = [{"bytes": value, "path": f"{i}.png"} for i, value in enumerate(raw)] if named else raw
    columns = {"shown": [None, *cells[1:]], "label": ["ab"[i % 2] for i in range(40)], "blob": [b"\xff\xfe"] * 40}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    features, target, doubts, _ = guess.table(tmp_path / "t.parquet", "parquet")
    assert (target.name, target.kind, doubts) == ("label", "class", [])
    assert {column.name: column.kind for column in features} == {"shown": "image", "blob": ""}


def test_words_stored_as_bytes_are_words(tmp_path):
    columns = {"town": pa.array([b"Ulm", b"Bonn"] * 60, pa.binary()), "price": [float(n) for n in range(120)]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    features, target, *_ = guess.table(tmp_path / "t.parquet", "parquet", target="price")
    assert [(column.name, column.kind) for column in (*features, target)] == [("town", "category"), ("price", "number")]


def test_pictures_are_no_table(tmp_path):
    assert guess.table(tmp_path, "image_folder") is None


def test_a_table_without_a_header_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("1,1,a\n2,3,b\n")
    with pytest.raises(
        UserError, match=r"two columns are named '1': .*\(`data add --options '\{columns: \[\.\.\.\]\}'`"
    ):
        guess.table(tmp_path / "t.csv", "csv")


def notes(features):
    return {column.name: (column.kind, column.note) for column in features}


def test_rows_that_cannot_be_read_are_told(tmp_path):
    rows = [f"{i},{'größe' if i % 4 == 1 else 'plain'},{i % 2}\n" for i in range(100)]
    (tmp_path / "t.csv").write_bytes("".join(["a,b,c\n", *rows]).encode("latin-1"))
    (doubt,) = guess.table(tmp_path / "t.csv", "csv").doubts
    assert doubt == (
        "25 of 100 rows cannot be read: the first: t.csv row 3 is not UTF-8 (byte 0xf6): set data.options.encoding"
    )
    assert guess.table(tmp_path / "t.csv", "csv", delimited.Options(encoding="latin-1")).doubts == []


@pytest.mark.parametrize(
    ("cell", "kind", "note"),
    [
        (lambda i: f"{i},5", "", "left out: 100 cells cannot be read: '0,5' is not a number: write 0.5"),
        (lambda i: f"{i + 1},000", "", "left out: 100 cells cannot be read: '1,000' is not a number: write 1000"),
        (lambda i: f"{i * 7}.5" if i % 50 else "inf", "number", "2 cells cannot be read: 'inf' is not a finite 32-bit"),
        (lambda i: f"{i * 7}.5" if i % 50 else "roomy", "number", "2 cells cannot be read: 'roomy' is not a number"),
        (lambda i: f"{i * 7}.5" if i % 5 else "roomy", "", "left out: a different word in nearly each row"),
        (lambda i: f"2024-02-{i % 31 + 1:02}", "", "left out: 6 cells cannot be read: '2024-02-30' is not a time"),
    ],
)
def test_cells_that_cannot_be_read_are_told(cell, kind, note):
    found = guess.feature("x", [cell(i) for i in range(100)])
    assert found.kind == kind
    assert found.note.startswith(note)


FRACTIONS = [f"{i}.{i % 10}" for i in range(100)]
AMOUNTS = [f"{1234 + 7 * i:,}" for i in range(100)]  # 1,234
WRONG = "cells cannot be read: '97.7' is not a number with the decimal mark ','"


def swapped(cells):
    return [cell.translate(str.maketrans(".,", ",.")) for cell in cells]


@pytest.mark.parametrize(
    ("area", "price", "options", "read"),
    [
        (FRACTIONS, AMOUNTS, {"thousands": ","}, "1,234 is read as 1234"),
        (swapped(FRACTIONS), swapped(AMOUNTS), {"decimal": ",", "thousands": "."}, "1.234 is read as 1234"),
        (swapped(FRACTIONS), FRACTIONS[::-1], {}, ""),
        (
            swapped(FRACTIONS),
            swapped(FRACTIONS[:97]) + FRACTIONS[97:],
            {"decimal": ","},
            f"0,0 is read as 0.0, 3 {WRONG}",
        ),
        (swapped(FRACTIONS), [cell.replace(",", " ") for cell in AMOUNTS], {"decimal": ",", "thousands": " "}, "1 234"),
        (FRACTIONS, [f"{cell}.5" for cell in AMOUNTS], {"thousands": ","}, "1,234.5 is read as 1234.5"),
        (FRACTIONS, FRACTIONS[::-1], {}, ""),
        (FRACTIONS, WORDS * 12 + WORDS[:4], {}, ""),
    ],
)
def test_the_marks_in_numbers_are_guessed(tmp_path, area, price, options, read):
    lines = [f"{i % 9};{area[i]};{price[i]}\n" for i in range(100)]
    (tmp_path / "t.csv").write_text("".join(["rooms;area;price\n", *lines]))
    found = guess.table(tmp_path / "t.csv", "csv")
    assert found.options() == options
    assert found.target.note.startswith(f"the target, {read}" if read else "the target")
    assert found.doubts == []


def test_what_a_mark_means_may_be_in_doubt(tmp_path):
    (tmp_path / "t.csv").write_text("n;price\n" + "".join(f"{i % 9};{cell}\n" for i, cell in enumerate(AMOUNTS)))
    place = Path("data/raw/t")
    found = guess.table(tmp_path / "t.csv", "csv")
    assert found.options() == {"thousands": ","}
    assert found.doubts == ["the commas in numbers may stand before fractions: if so, say --options '{decimal: \",\"}'"]
    assert upcoming(found, place).startswith("where a warning is right, `millrace data add data/raw/t --options ...`; ")
    found = guess.table(tmp_path / "t.csv", "csv", delimited.Options(decimal=","))
    assert (found.options(), found.doubts) == ({"decimal": ","}, [])
    assert found.target.note == "the target, 1,234 is read as 1.234"
    assert upcoming(found, place).startswith("mend the guesses under schema in params.yaml, `millrace data expect`, ")
    assert upcoming(None, place) == ""


def test_a_target_that_cannot_be_read_or_is_hardly_one_is_told():
    told = guess.answer("y", [f"{i + 1},000" for i in range(100)])
    assert (told.kind, told.note) == (
        "number",
        "the target, 100 cells cannot be read: '1,000' is not a number: write 1000",
    )
    told = guess.answer("y", [f"h{i}" for i in range(100)])
    assert (told.kind, told.note) == (
        "class",
        "the target, 100 different values in 100 rows: is it another column?",
    )


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("n", lambda i: i, ""),
        ("n", lambda i: str(900 - i), ""),
        ("House_ID", lambda i: i * i, ""),
        ("width", lambda i: i * i, "number"),
        ("plaid", lambda i: i * i, "number"),
        ("id", lambda i: i // 2 * i, "number"),
    ],
)
def test_what_only_tells_rows_apart_is_left_out(name, value, kind):
    found = guess.feature(name, [value(i) for i in range(100)])
    assert (found.kind, found.note) == (kind, "" if kind else "left out: it only tells the rows apart")


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_nested_column_is_left_out_and_hurts_no_other(tmp_path, form):
    rows = [{"a": {"x": i}, "n": i % 7, "l": [1, 2], "y": "ab"[i % 2]} for i in range(60)]
    path = tmp_path / {"json": "t.jsonl", "parquet": "t.parquet"}[form]
    if form == "json":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    features, target, doubts, _ = guess.table(path, form)
    found = notes(features)
    assert found["n"] == ("category", "") and target.kind == "class" and doubts == []
    for name in ("a", "l"):
        kind, note = found[name]
        assert kind == "" and note.startswith(f"left out: the column {name!r} holds nested values (")


def test_a_first_row_of_data_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("".join(f"{i % 3 + 0.5},2024-01-01,Ulm,{i}\n" for i in range(50)))
    assert guess.table(tmp_path / "t.csv", "csv").doubts == [
        "the first row looks like data (0.5, 2024-01-01, 0): if it is, say --options '{columns: [...]}'"
    ]
    options = delimited.Options(columns=("a", "b", "c", "y"))
    assert guess.table(tmp_path / "t.csv", "csv", options).doubts == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n", "t.csv has no rows"),
        ("price\n1\n2\n", "t.csv has one column only, price: a table needs a feature and a target"),
        ("a,b\n1,x\n2,x\n", "the target 'b' is the same in all rows: say another with --target"),
        ("a,b\n1\n2\n", "no row of .*t.csv can be read: the first: t.csv row 2 has 1 cells"),
        ("a,id,b\nx,1,x\nx,2,y\n", "has no feature: 'a' is left out: the same .*; 'id' is left out: it only tells"),
    ],
)
def test_of_what_nothing_can_be_learnt_nothing_is_guessed(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        guess.table(tmp_path / "t.csv", "csv")


def test_a_table_that_is_refused_leaves_no_trace(fresh, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    assert "t.csv has no rows" in fresh.millrace("data", "add", str(tmp_path / "t.csv"), code=1)
    assert fresh.run("git", "status", "--porcelain") == ""


def test_what_a_person_says_of_the_files_is_heeded(fresh, tmp_path):
    (tmp_path / "2024.v1.csv").write_bytes("".join(f"{i % 9}\tgröße {i % 3}\n" for i in range(90)).encode("latin-1"))
    options = {"encoding": "latin-1", "columns": ["mark", "size"]}
    add = ("data", "add", str(tmp_path / "2024.v1.csv"))
    fresh.millrace(*add, "--options", json.dumps(options), "--target", "mark")
    made = parse(fresh.folder / "params.yaml")
    assert made.data.options == options and list(made.schema_.target) == ["mark"]
    assert made.export.name == "of-2024-v1"
    for said, words in [("{encodin: x}", "did you mean 'encoding'"), ("latin", "these are no options"), ("[", "while")]:
        assert words in fresh.millrace(*add, "--options", said, code=2)
    assert "has no column 'prize'" in fresh.millrace(
        *add, "--options", json.dumps(options), "--target", "prize", code=1
    )


def test_marks_in_numbers_are_written_down(fresh, tmp_path):
    lines = [f'{i % 60},{i % 7}.5,"{price}"\n' for i, price in enumerate(AMOUNTS)]
    (tmp_path / "t.csv").write_text("rooms,area,price\n" + "".join(lines))
    said = fresh.millrace("data", "add", str(tmp_path / "t.csv"))
    assert "the target, 1,234 is read as 1234" in said and 'options: {"thousands": ","}' in said
    assert "Next: mend the guesses under schema in params.yaml, `millrace data expect`, `git add data/raw" in said
    assert parse(fresh.folder / "params.yaml").data.options == {"thousands": ","}
    taken = fresh.millrace("data", "add", str(tmp_path / "t.csv"), code=2)
    assert "data/raw/t exists: `millrace data add data/raw/t` reads it anew; for other data give another name" in taken


def test_a_table_that_is_added_is_ready_to_run(fresh, houses):
    said = fresh.millrace("data", "add", str(houses))
    assert "left out: a different word in nearly each row" in said
    assert "the target" in said
    made = parse(fresh.folder / "params.yaml")
    assert made.export.name == "houses" and "name: houses" in said
    assert made.data.path == "data/raw/houses" and made.data.format == "csv"
    assert list(made.schema_.target) == ["price"]
    assert "params.yaml is sound" in fresh.millrace("check")
    assert "data/raw/houses" in fresh.run("git", "status", "--porcelain", "--untracked-files=all")
