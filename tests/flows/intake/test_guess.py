"""The guessed kinds of a table's columns, and how they are written to params.yaml."""

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
from flows.intake.add import next_steps
from stages.core.errors import UserError
from stages.schema.kinds import image
from stages.settings.params import parse
from stages.tables.sources import delimited
from tests.support.failing import codes, failing

WORDS = ["quiet", "sunny", "old", "large", "garden", "near", "the", "station"]


@pytest.fixture
def houses(tmp_path):
    """A table of 300 rows with a column of each kind."""
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


def test_the_kind_of_each_column_is_guessed(houses):
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


def test_a_target_with_few_distinct_numbers_is_a_class(tmp_path):
    (tmp_path / "t.csv").write_text("x,answer\n" + "".join(f"{i}.5,{i % 3}\n" for i in range(90)))
    _, target, *_ = guess.table(tmp_path / "t.csv", "csv")
    assert (target.name, target.kind) == ("answer", "class")


def test_json_lines_are_a_table(tmp_path):
    rows = [{"query": "play some music now", "n": i % 7, "intent": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    features, target, *_ = guess.table(tmp_path / "t.jsonl", "json")
    assert [column.name for column in features] == ["query", "n"]
    assert (target.name, target.kind) == ("intent", "class")


@pytest.mark.parametrize("named", [True, False])
def test_images_in_parquet_cells_are_images(tmp_path, named):
    """With file names, as in Hugging Face's data sets, and as bytes alone."""
    raw = [image.raw(np.full((2, 2), gray, np.uint8)) for gray in range(40)]
    cells = [{"bytes": value, "path": f"{i}.png"} for i, value in enumerate(raw)] if named else raw
    columns = {"shown": [None, *cells[1:]], "label": ["ab"[i % 2] for i in range(40)], "blob": [b"\xff\xfe"] * 40}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    features, target, doubts, _ = guess.table(tmp_path / "t.parquet", "parquet")
    assert (target.name, target.kind, doubts) == ("label", "class", [])
    assert {column.name: column.kind for column in features} == {"shown": "image", "blob": ""}


def test_text_stored_as_bytes_is_text(tmp_path):
    columns = {"town": pa.array([b"Ulm", b"Bonn"] * 60, pa.binary()), "price": [float(n) for n in range(120)]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    features, target, *_ = guess.table(tmp_path / "t.parquet", "parquet", target="price")
    assert [(column.name, column.kind) for column in (*features, target)] == [("town", "category"), ("price", "number")]


def test_a_folder_of_images_is_not_a_table(tmp_path):
    assert guess.table(tmp_path, "image_folder") is None


def test_a_table_without_a_header_is_an_error(tmp_path):
    (tmp_path / "t.csv").write_text("1,1,a\n2,3,b\n")
    with failing(
        UserError,
        "data-repeated-column",
        "'1'",
        "`data add --options '{columns: [...]}'`",
    ):
        guess.table(tmp_path / "t.csv", "csv")


def notes(features):
    return {column.name: (column.kind, column.note) for column in features}


def test_unreadable_rows_are_a_warning(tmp_path):
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
def test_unreadable_cells_are_noted(cell, kind, note):
    column = guess.guess_feature("x", [cell(i) for i in range(100)])
    assert column.kind == kind
    assert column.note.startswith(note)


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
def test_the_number_format_is_guessed(tmp_path, area, price, options, read):
    lines = [f"{i % 9};{area[i]};{price[i]}\n" for i in range(100)]
    (tmp_path / "t.csv").write_text("".join(["rooms;area;price\n", *lines]))
    guessed = guess.table(tmp_path / "t.csv", "csv")
    assert guessed.options() == options
    assert guessed.target.note.startswith(f"the target, {read}" if read else "the target")
    assert guessed.doubts == []


def test_an_ambiguous_number_format_is_a_warning(tmp_path):
    (tmp_path / "t.csv").write_text("n;price\n" + "".join(f"{i % 9};{cell}\n" for i, cell in enumerate(AMOUNTS)))
    place = Path("data/raw/t")
    guessed = guess.table(tmp_path / "t.csv", "csv")
    assert guessed.options() == {"thousands": ","}
    assert guessed.doubts == ["the commas in numbers may be decimal marks: if so, add --options '{decimal: \",\"}'"]
    assert next_steps(guessed, place).startswith(
        "if a warning is right, `millrace data add data/raw/t --options ...`; "
    )
    guessed = guess.table(tmp_path / "t.csv", "csv", delimited.Options(decimal=","))
    assert (guessed.options(), guessed.doubts) == ({"decimal": ","}, [])
    assert guessed.target.note == "the target, 1,234 is read as 1.234"
    assert next_steps(guessed, place).startswith(
        "correct the guesses under schema in params.yaml, `millrace data expect`, "
    )
    assert next_steps(None, place) == ""


def test_an_unreadable_or_unlikely_target_is_noted():
    target = guess.guess_target("y", [f"{i + 1},000" for i in range(100)])
    assert (target.kind, target.note) == (
        "number",
        "the target, 100 cells cannot be read: '1,000' is not a number: write 1000",
    )
    target = guess.guess_target("y", [f"h{i}" for i in range(100)])
    assert (target.kind, target.note) == (
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
        ("CustomerID", lambda i: i * i, ""),
        ("paid", lambda i: i * i, "number"),
    ],
)
def test_a_column_that_only_identifies_rows_is_left_out(name, value, kind):
    column = guess.guess_feature(name, [value(i) for i in range(100)])
    assert (column.kind, column.note) == (kind, "" if kind else "left out: it only identifies rows")


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_nested_column_is_left_out_and_the_others_are_kept(tmp_path, form):
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


def test_a_first_row_of_data_is_a_warning(tmp_path):
    (tmp_path / "t.csv").write_text("".join(f"{i % 3 + 0.5},2024-01-01,Ulm,{i}\n" for i in range(50)))
    assert guess.table(tmp_path / "t.csv", "csv").doubts == [
        "the first row looks like data (0.5, 2024-01-01, 0): if it is, add --options '{columns: [...]}'"
    ]
    options = delimited.Options(columns=("a", "b", "c", "y"))
    assert guess.table(tmp_path / "t.csv", "csv", options).doubts == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n", ("data-no-rows", "t.csv")),
        ("price\n1\n2\n", ("data-one-column", "t.csv", "price")),
        ("a,b\n1,x\n2,x\n", ("data-constant-target", "'b'")),
        (
            "a,b\n1\n2\n",
            (
                "data-no-rows",
                "t.csv",
                "t.csv row 2",
            ),
        ),
        (
            "a,id,b\nx,1,x\nx,2,y\n",
            ("data-no-feature", "'a'", "'id'"),
        ),
    ],
)
def test_a_table_without_a_usable_feature_or_target_is_an_error(tmp_path, text, expected):
    (tmp_path / "t.csv").write_text(text)
    with failing(UserError, *expected):
        guess.table(tmp_path / "t.csv", "csv")


def test_a_refused_table_changes_no_file(fresh, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    assert codes(fresh.millrace("data", "add", str(tmp_path / "t.csv"), code=1)) == ["data-no-rows"]
    assert fresh.run("git", "status", "--porcelain") == ""


def test_options_on_the_command_line_are_used(fresh, tmp_path):
    (tmp_path / "2024.v1.csv").write_bytes("".join(f"{i % 9}\tgröße {i % 3}\n" for i in range(90)).encode("latin-1"))
    options = {"encoding": "latin-1", "columns": ["mark", "size"]}
    add = ("data", "add", str(tmp_path / "2024.v1.csv"))
    fresh.millrace(*add, "--options", json.dumps(options), "--target", "mark")
    made = parse(fresh.folder / "params.yaml")
    assert made.data.options == options and list(made.schema.target) == ["mark"]
    assert made.export.name == "of-2024-v1"
    for given, words in [("{encodin: x}", "'encoding'"), ("latin", "write options like"), ("[", "while")]:
        assert words in fresh.millrace(*add, "--options", given, code=2)
    assert "has no column 'prize'" in fresh.millrace(
        *add, "--options", json.dumps(options), "--target", "prize", code=1
    )


def test_the_number_format_is_written_to_params(fresh, tmp_path):
    lines = [f'{i % 60},{i % 7}.5,"{price}"\n' for i, price in enumerate(AMOUNTS)]
    (tmp_path / "t.csv").write_text("rooms,area,price\n" + "".join(lines))
    output = fresh.millrace("data", "add", str(tmp_path / "t.csv"))
    assert "the target, 1,234 is read as 1234" in output and 'options: {"thousands": ","}' in output
    assert "Next: correct the guesses under schema in params.yaml, `millrace data expect`, `git add data/raw" in output
    assert parse(fresh.folder / "params.yaml").data.options == {"thousands": ","}
    message = fresh.millrace("data", "add", str(tmp_path / "t.csv"), code=2)
    assert (
        "data/raw/t exists: `millrace data add data/raw/t` reads it again; for other data give another name" in message
    )


def test_an_added_table_is_ready_to_run(fresh, houses):
    output = fresh.millrace("data", "add", str(houses))
    assert "left out: a different word in nearly each row" in output
    assert "the target" in output
    made = parse(fresh.folder / "params.yaml")
    assert made.export.name == "houses" and "name: houses" in output
    assert made.data.path == "data/raw/houses" and made.data.format == "csv"
    assert list(made.schema.target) == ["price"]
    assert "params.yaml is sound" in fresh.millrace("check")
    assert "data/raw/houses" in fresh.run("git", "status", "--porcelain", "--untracked-files=all")
