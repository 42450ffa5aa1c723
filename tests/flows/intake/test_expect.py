"""`millrace data expect`, and changed or faulty tables in the real stages."""

from __future__ import annotations

import csv
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
from pyarrow import parquet
from ruamel.yaml import YAML

import stages.validation.expectations
from flows.intake import expect
from stages import ingest, prepare, validate
from stages.core.errors import Misuse, Refused, UserError
from stages.schema import Schema
from stages.schema.kinds import category
from stages.settings import params
from stages.tables.arrays import open_split
from stages.validation import expectations, leakage, near_duplicates
from stages.validation.expectations.number import around
from tests.support.project import ROOT

pytestmark = pytest.mark.slow

RAW = Path("data/raw/houses")
HEADER = ["area", "rooms", "town", "notes", "price"]
WORDS = ["quiet", "sunny", "old", "large", "garden", "near", "the", "station", "bright", "small"]


def houses(count=300):
    """Valid rows, some with a blank."""
    chance = random.Random(0)
    for number in range(count):
        area = round(chance.uniform(20, 200), 1)
        town = chance.choice(["Ulm", "Bonn", "Kiel", ""])
        notes = " ".join(chance.choices(WORDS, k=8))
        yield [area, number % 6 + 1, town, notes, round(area * chance.uniform(1000, 5000))]


class Line:
    """A project whose stages run in this process."""

    def bring(self, rows, header=HEADER, name="houses.csv"):
        shutil.rmtree(RAW, ignore_errors=True)
        RAW.mkdir(parents=True)
        self.add(rows, header, name)

    def add(self, rows, header=HEADER, name="houses.csv"):
        with (RAW / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])

    def run(self, *names):
        paths = params.paths() | {"data": RAW}
        given = {
            ingest: ("data", "table", "rejects"),
            validate: ("table", "rejects", "validation", "quarantine"),
            prepare: ("table", "quarantine", "arrays", "schema"),
        }
        for stage in names:
            stage.main(*(Path(paths[name]) for name in given[stage]))

    def written(self):
        tree = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
        return tree["validate"]["columns"]

    def reasons(self):
        with Path(params.paths()["quarantine"]).open(encoding="utf-8", newline="") as file:
            return [line["reasons"] for line in csv.DictReader(file)]


@pytest.fixture
def line(tmp_path, monkeypatch):
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    features = {"area": "number", "rooms": "number", "town": "category", "notes": "text"}
    params.edit(
        {
            "data": {"path": RAW.as_posix(), "format": "csv", "options": {}},
            "schema": {"features": features, "target": {"price": "number"}},
            "model": {"encoders": {}},
            "train": {"augment": {}},
            "gate": {"slices": {}},
        }
    )
    made = Line()
    made.bring(houses())
    monkeypatch.setattr(expect, "ingest", lambda: made.run(ingest))
    return made


def test_inferred_expectations_accept_the_data_they_were_inferred_from(line, capsys):
    expect.main()
    assert line.written() == {
        "area": {"min": 0, "max": 220, "max_missing": 0.05},
        "rooms": {"min": 0, "max": 7, "max_missing": 0.05},
        "town": {"allowed": ["Bonn", "Kiel", "Ulm"], "max_missing": 0.31},
        "notes": {"max_length": 120, "scripts": ["LATIN"], "max_missing": 0.05},
        "price": {"min": 0, "max": 940000},
    }
    output = capsys.readouterr().out
    assert "allowed [Bonn, Kiel, Ulm], max_missing 0.31" in output
    assert "# share of invalid rows" in Path("params.yaml").read_text(encoding="utf-8")
    line.run(ingest, validate, prepare)
    assert capsys.readouterr().out.count("\n  ") == 0  # not even a warning


def changed(column, value, every=1):
    place = HEADER.index(column)
    return [
        [value(cell) if i == place and not number % every else cell for i, cell in enumerate(row)]
        for number, row in enumerate(houses())
    ]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("area", lambda cell: 1000 * cell, r"share of rows quarantined is 1, over 0\.05 \(houses\.csv row 2,"),
        ("town", lambda cell: "", r"share of rows with town is 0, under 0\.69"),
        ("notes", lambda cell: "тихий дом, старый сад", "share of rows quarantined is 1"),
        ("price", lambda cell: 9, "number of different values in price is 1, under 2"),
    ],
)
def test_shifted_data_are_refused(line, column, value, words):
    expect.main()
    line.bring(changed(column, value))
    with pytest.raises(Refused, match=words):
        line.run(ingest, validate)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("area", lambda cell: 1000 * cell, "is over 220"),
        ("town", lambda cell: "Mainz", "town Mainz is not among Bonn, Kiel, Ulm"),
        ("notes", lambda cell: "тихий старый дом", "notes.script CYRILLIC is not among LATIN"),
        ("notes", lambda cell: "so quiet " * 20, "notes.length 179 is over 120"),
    ],
)
def test_a_few_unexpected_rows_are_set_aside(line, column, value, words):
    expect.main()
    line.bring(changed(column, value, every=50))
    line.run(ingest, validate, prepare)
    assert len(line.reasons()) == 6
    assert all(words in reason for reason in line.reasons())


def without(rows, column):
    place = HEADER.index(column)
    return [row[:place] + row[place + 1 :] for row in rows]


def test_a_missing_or_renamed_column_is_an_error(line):
    line.bring(without(houses(), "area"), without([HEADER], "area")[0])
    with pytest.raises(UserError, match=r"has no column 'area', which params\.yaml names under schema: it has rooms,"):
        line.run(ingest)
    line.bring(houses(), ["aera", *HEADER[1:]])
    with pytest.raises(UserError, match=r"has no column 'area', which params\.yaml names .*: did you mean 'aera'"):
        line.run(ingest)
    line.bring(without(houses(), "price"), HEADER[:-1])
    with pytest.raises(UserError, match=r"has no column 'price', which params\.yaml names under schema"):
        line.run(ingest)


def test_an_additional_column_changes_nothing(line):
    line.run(ingest)
    before = Path(params.paths()["table"]).read_bytes()
    line.bring([[*row, "new"] for row in houses()], [*HEADER, "garden"])
    line.run(ingest)
    assert Path(params.paths()["table"]).read_bytes() == before


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("roomy", "'roomy' is not a number"),
        ("inf", "'inf' is not a finite 32-bit number"),
        ("-Infinity", "'-Infinity' is not a finite 32-bit number"),
        ("1e39", "'1e39' is not a finite 32-bit number"),
        ("1,234.5", "'1,234.5' is not a number: write 1234.5"),
        ("=cmd|' /C calc'!A0", "\"=cmd|' /C calc'!A0\" is not a number"),
    ],
)
def test_a_cell_that_is_not_a_number_rejects_its_row(line, cell, reason):
    line.bring(changed("area", lambda _: cell, every=100))
    line.run(ingest, validate, prepare)
    with Path(params.paths()["rejects"]).open(encoding="utf-8", newline="") as file:
        rejects = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rejects == [(f"houses.csv row {row}", f"area: {reason}") for row in (2, 102, 202)]


def test_a_column_of_another_type_is_an_error_that_names_rows(line):
    line.bring(changed("area", lambda cell: f"{cell} m2"))
    with pytest.raises(
        UserError, match=r"can be read: houses\.csv row 2 area: '172\.0 m2' is not a number; .* 297 more"
    ):
        line.run(ingest)
    line.bring(changed("area", lambda cell: f"{cell} m2", every=3))
    with pytest.raises(Refused, match=r"share of samples that could not be read is 0\.3333, over 0\.05 \(houses"):
        line.run(ingest, validate)


def test_missing_targets_are_set_aside_or_refused(line):
    line.bring(changed("price", lambda _: "", every=100))
    line.run(ingest, validate, prepare)
    assert line.reasons() == ["price is missing"] * 3
    line.bring(changed("price", lambda _: ""))
    with pytest.raises(Refused, match=r"share of rows quarantined is 1, over 0\.05"):
        line.run(ingest, validate)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda number: "dear", "number of classes in price is 1, under 2"),
        (
            lambda number: "dear" if number else "cheap",
            r"rows of the smallest class in price is 1, under 2 \(houses",
        ),
    ],
)
def test_too_few_or_too_small_classes_are_refused(line, label, words):
    params.edit({"schema": {"features": {"area": "number"}, "target": {"price": "class"}}})
    line.bring([[*row[:4], label(number)] for number, row in enumerate(houses())])
    with pytest.raises(Refused, match=words):
        line.run(ingest, validate)


def test_a_word_outside_the_training_data_is_unknown(line):
    line.bring(houses(100), name="train.csv")
    line.add([[*row[:2], "Mainz", *row[3:]] for row in list(houses(120))[100:]], name="test.csv")
    line.run(ingest, validate, prepare)
    schema = Schema.load(Path(params.paths()["schema"]))
    (town,) = (place for place, block in enumerate(schema.blocks()) if block.name == "category")
    assert set(open_split(Path(params.paths()["arrays"]), "test").blocks[town][:, 0]) == {category.UNKNOWN}


def test_a_sample_in_two_splits_is_reported_and_removed(line, capsys):
    rows = list(houses(120))
    line.bring(rows[:100], name="train.csv")
    line.add([*rows[100:], rows[0]], name="test.csv")
    line.run(ingest, validate, prepare)
    output = capsys.readouterr().out
    assert (
        "2 rows: number of official splits with this sample is 2, over 1 (test.csv row 22, train.csv row 2)" in output
    )
    assert "1 copies of a later split" in output


def test_empty_huge_and_emoji_texts(line):
    strange = {0: "", 1: " ".join(["so quiet"] * 120_000), 2: "😀🎉 👍🏽", 3: "=cmd()|' /C calc'!A0"}
    rows = [[*row[:3], strange.get(number, row[3]), row[4]] for number, row in enumerate(houses())]
    line.bring(rows)
    line.run(ingest, validate, prepare)
    assert line.reasons() == ["notes.length 1,079,999 is over 100,000"]
    read = parquet.read_table(params.paths()["table"]).slice(0, 4).to_pylist()
    assert [row["notes"] for row in read] == [None, strange[1], strange[2], strange[3]]
    assert [row["notes.script"] for row in read] == [None, "LATIN", None, "LATIN"]


def test_existing_expectations_are_kept_unless_forced(line, capsys):
    params.merge({"validate": {"columns": {"area": {"min": 10, "unique": False}}}})
    path = Path("params.yaml")
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("area: {min: 10, unique: false}", "area: {min: 10, unique: false}  # ours"))
    expect.main()
    assert line.written()["area"] == {"min": 10, "unique": False, "max": 220, "max_missing": 0.05}
    assert "# ours" in path.read_text(encoding="utf-8")
    assert "min 10" in capsys.readouterr().out
    expect.main(force=True)
    assert line.written()["area"] == {"min": 0, "unique": False, "max": 220, "max_missing": 0.05}


def test_contradicting_expectations_are_an_error_and_nothing_is_written(line):
    params.merge({"validate": {"columns": {"area": {"min": 900}}}})
    before = Path("params.yaml").read_bytes()
    with pytest.raises(Misuse, match=r"min 900.* is over max 220.*: correct or remove validate\.columns\.area"):
        expect.main()
    assert Path("params.yaml").read_bytes() == before


def test_uniqueness_is_checked_where_it_is_configured(line, capsys):
    params.merge({"validate": {"columns": {"notes": {"unique": True}, "town": {"min_distinct": 9}}}})
    line.bring([*houses(), [50, 2, "Ulm", next(iter(houses()))[3], 100_000]])
    with pytest.raises(Refused, match="number of different words in town is 3, under 9"):
        line.run(ingest, validate)
    (one, two) = line.reasons()
    assert one == two and one.endswith("is not unique")


def test_a_leaking_column_is_a_warning_and_above_the_limit_a_refusal(line, capsys):
    params.edit({"schema": {"features": {"area": "number", "rooms": "number"}, "target": {"price": "number"}}})
    line.bring([[row[4] / 7, *row[1:]] for row in houses()])
    line.run(ingest, validate)
    output = capsys.readouterr().out
    assert "  warning: share of price that area tells by itself is 0.99" in output
    assert ", over 0.95: unless it is known before the target is, take its column out of schema.features" in output
    params.edit({"validate": {"max_leakage": 0.9}})
    with pytest.raises(Refused, match=r"share of price that area tells by itself is 0\.99\d*, over 0\.9: unless"):
        line.run(validate)


@pytest.mark.parametrize("labelled", [0, 1])
def test_copies_of_one_sample_do_not_count_as_leakage(labelled):
    """They are all in one half, so the other half is empty."""
    price = ["dear" if copy == labelled else None for copy in [0] * 100 + [1] * 100]
    rows = pd.DataFrame({"_id": [0] * 100 + [1] * 100, "area": range(200), "price": price})
    assert leakage.scores(rows, "price") == {}


def test_a_leaking_word_is_a_warning(line, capsys):
    params.edit({"schema": {"features": {"rooms": "number", "town": "category"}, "target": {"price": "class"}}})
    params.edit({"validate": {"columns": {"price": {"max_labels": None}}}})
    line.bring([[*row[:4], "cheap" if row[2] in ("Ulm", "") else "dear"] for row in houses()])
    line.run(ingest, validate)
    assert "  warning: share of price that town tells by itself is 1, over 0.95" in capsys.readouterr().out


def test_near_duplicates_are_a_warning(line, capsys):
    (area, *_), *_ = rows = list(houses())
    params.edit({"schema": {"features": {"area": "number", "notes": "text"}, "target": {"price": "number"}}})
    line.bring([*rows, [area * 1.00001, 1, "", rows[0][3].upper().replace(" ", ",  ") + "!", 100_000]])
    line.run(ingest, validate)
    warning = "2 rows: number of samples nearly like this one is 2, over 1 (houses.csv row 2, houses.csv row 302)"
    assert f"  warning: {warning}\n" in capsys.readouterr().out
    assert line.reasons() == []


def test_signs_distinguish_words():
    rows = pd.DataFrame({"word": ["C++", "C#", "c", " C ", "(c)", "-5", "5", "😀", "🎉", None, "1.5", "15", "<5"]})
    assert near_duplicates.groups(rows, ["word"]).tolist() == [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_numbers_with_three_equal_digits_are_near_duplicates():
    rows = pd.DataFrame({"x": [1.0, 1.0004, -1.0, 0.0, -0.0, None, 12345.0, 12350.0, 1.01, 9.9999, 10.0]})
    assert near_duplicates.groups(rows, ["x"]).tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6]


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [
        (0.5, 1.0, (0.45, 1.05)),
        (0.0, 1.5, (0, 1.7)),
        (20.0, 199.0, (0, 220)),
        (-3.5, -1.0, (-3.8, -0.7)),
        (-3.5, 0.0, (-3.9, 0)),
        (5.5, 5.5, (4.9, 6.1)),
        (0.0, 0.0, (0, 1)),
        (0.0, 6.0, (0, 7)),
        (-1e-9, 1e-9, (-1.2e-9, 1.2e-9)),
        (-3e38, 3e38, (-3.6e38, 3.6e38)),
        (1900.0, 2020.0, (1880, 2040)),
        (2.0**60, 2.0**60, (1e18, 1.3e18)),
    ],
)
def test_an_inferred_range_has_a_margin_and_keeps_its_sign(low, high, ends):
    assert tuple(around(pd.Series([low, high])).values()) == pytest.approx(ends, abs=0)


def test_an_incomplete_or_missing_file_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("Options = dict\n")
    monkeypatch.setattr(
        stages.validation.expectations, "__path__", [*stages.validation.expectations.__path__, str(tmp_path)]
    )
    with pytest.raises(
        ValueError, match=r"stages/validation/expectations/half\.py lacks expectations, infer: see what the other"
    ):
        expectations.of("half")
    with pytest.raises(ValueError, match=r"stages/validation/expectations/whole\.py is missing"):
        expectations.of("whole")


def test_the_command_ingests_writes_and_shows(fresh):
    output = fresh.millrace("data", "expect")
    assert "modes [L]" in output and "labels [0, 1, 2, 3, 4, 5, 4 more]" in output
    after = params.parse(fresh.folder / "params.yaml").validate.columns
    assert after["image"] == {"min_side": 4, "max_side": 16, "modes": ["L"]}
    fresh.run("dvc", "repro", "--quiet", "validate")
    assert "Example: millrace data expect" in fresh.millrace("data", "expect", "--help")
