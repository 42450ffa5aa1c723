"""CSV and TSV: reading, rejected rows with their numbers, and errors."""

from __future__ import annotations

import gzip
import pickle

import pytest

from stages.core.errors import UserError
from stages.schema import Column, Schema
from stages.tables.sources import Reject, delimited
from tests.support.failing import failing

SCHEMA = Schema((Column("a", "number"), Column("b", "category")), Column("c", "target_class"))


def rows(path, **options):
    """All samples and rejects, with chunks pickled as between processes."""
    found = []
    for chunk in delimited.chunks(path, SCHEMA, delimited.Options(**options)):
        found += delimited.read(pickle.loads(pickle.dumps(chunk)))
    return found


def table(tmp_path, text, name="table.csv"):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return tmp_path / name


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.csv.gz", "table.data"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_cells_are_read_by_name(tmp_path, name, delimiter):
    text = 'c,x,a,b\ny,0, 1.5 ,"one\ntwo"\nn,0,?,NA\n'.replace(",", delimiter)
    first, second = rows(table(tmp_path, text, name))
    assert first.values == {"a": "1.5", "b": "one\ntwo", "c": "y"}
    assert second.values == {"a": None, "b": None, "c": "n"}
    assert (first.source, second.source) == (f"{name} row 2", f"{name} row 3")


def test_without_a_header_row_names_come_from_params(tmp_path):
    found = rows(table(tmp_path, "1,x,yes\n2,y,no.\n"), columns=("a", "b", "c"), replace={"no.": "no"})
    assert [sample.values["c"] for sample in found] == ["yes", "no"]
    assert found[0].source == "table.csv row 1"


def test_files_in_a_folder_are_official_splits(tmp_path):
    for name in ("adult-train.csv", "adult_test.csv", "notes.txt"):
        table(tmp_path, "a,b,c\n1,x,y\n", name)
    assert [(sample.source, sample.split) for sample in rows(tmp_path)] == [
        ("adult-train.csv row 2", "train"),
        ("adult_test.csv row 2", "test"),
    ]


def test_a_declared_encoding_is_used(tmp_path):
    path = table(tmp_path, "a,b,c\n1,größe,y\n".encode("latin-1"))
    assert [found.reason[:12] for found in rows(path)] == ["is not UTF-8"]
    assert rows(path, encoding="latin-1")[0].values["b"] == "größe"


@pytest.mark.parametrize("options", [{}, {"columns": ("a", "b", "c")}])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognized_and_read_once_declared(tmp_path, encoding, options):
    mark = "" if encoding == "utf-16" else "\ufeff"
    path = table(tmp_path, f"{mark}a,b,c\n1,größe,y\n".encode(encoding))
    with failing(UserError, "data-other-encoding", "utf-16"):
        rows(path, **options)
    assert rows(path, encoding="utf-16", **options)[-1].values == {"a": "1", "b": "größe", "c": "y"}


def test_a_header_in_another_encoding_is_an_error(tmp_path):
    path = table(tmp_path, "a,b,c,größe\n1,x,y,2\n".encode("latin-1"))
    with failing(UserError, "data-other-encoding", "table.csv", "UTF-8"):
        rows(path)
    assert rows(path, encoding="latin-1")[0].values == {"a": "1", "b": "x", "c": "y"}


@pytest.mark.parametrize(
    ("marks", "cell", "number"),
    [
        ({"decimal": ","}, "52,9", "52.9"),
        ({"decimal": ","}, "-,5e3", "-.5e3"),
        ({"decimal": ",", "thousands": "."}, "+1.234.567,5", "+1234567.5"),
        ({"thousands": ","}, "152,632", "152632"),
        ({"thousands": ","}, "1234567.8", "1234567.8"),
        ({"decimal": ",", "thousands": "\u202f"}, "12\u202f345,0", "12345.0"),
        ({"decimal": ",", "replace": {"half": "0,5"}}, "half", "0.5"),
        ({"decimal": ","}, "NA", None),
        ({"decimal": ","}, "many", "many"),
    ],
)
def test_numbers_are_written_with_other_marks(tmp_path, marks, cell, number):
    (found,) = rows(table(tmp_path, f"a;b;c\n {cell} ;{cell};{cell}\n"), **marks)
    unread = marks.get("replace", {}).get(cell, cell) if number else None
    assert found.values == {"a": number, "b": unread, "c": unread}  # words stay as they are


@pytest.mark.parametrize(
    ("marks", "cell", "words"),
    [
        ({"decimal": ","}, "1.5", "'1.5' is not a number with the decimal mark ','"),
        ({"decimal": ","}, "1.234", "'1.234' is not a number with the decimal mark ','"),
        ({"decimal": ","}, "1,2,3", "'1,2,3' is not a number with the decimal mark ','"),
        ({"thousands": ","}, "1,2,3", "'1,2,3' is not a number with the decimal mark '.' and ',' between thousands"),
        ({"thousands": ","}, "1,23", "'1,23' is not a number"),
        ({"thousands": ","}, "0,123", "'0,123' is not a number"),
        ({"thousands": ","}, "1,2345", "'1,2345' is not a number"),
        ({"thousands": ","}, "1234,567", "'1234,567' is not a number"),
        ({"thousands": ","}, "1.234,5", "'1.234,5' is not a number"),
        ({"decimal": ",", "thousands": "."}, "1.2", "'1.2' is not a number with the decimal mark ',' and '.' between"),
        ({"decimal": ",", "thousands": "."}, "1,234.5", "'1,234.5' is not a number"),
    ],
)
def test_numbers_with_marks_in_wrong_places_are_rejected(tmp_path, marks, cell, words):
    good, bad = rows(table(tmp_path, f"a;b;c\n7;x;y\n{cell};x;y\n"), **marks)
    assert good.values["a"] == "7"
    assert bad.source == "table.csv row 3" and bad.reason.startswith(f"a: {words}")


def test_faulty_rows_are_rejected_by_their_number(tmp_path):
    text = b'a,b,c\n1,x,y\n2,x\n\n3,x,y,z\n4,\xff,y\n5,n\0l,y\n=cmd(),x,y\n6,"never closed,y\n7,x,y\n'
    found = rows(table(tmp_path, text))
    rejects = {reject.source: reject.reason for reject in found if isinstance(reject, Reject)}
    assert rejects == {
        "table.csv row 3": "has 2 cells and not 3",
        "table.csv row 4": "has 4 cells and not 3",
        "table.csv row 5": "is not UTF-8 (byte 0xff): set data.options.encoding",
        "table.csv row 6": "holds a NUL byte",
        "table.csv row 8": "has 2 cells and not 3 (is a quote in it never closed?)",
        "table.csv row 9": "belongs to the quote that row 8 opens",
    }
    assert [sample.values["a"] for sample in found if not isinstance(sample, Reject)] == ["1", "=cmd()"]


@pytest.mark.parametrize("block_bytes", [60, 1 << 20])
def test_rows_after_a_quote_that_is_closed_too_late_keep_their_numbers(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block_bytes)
    lines = [f'{i},"x, {i}",y' for i in range(40)]
    lines[10], lines[11], lines[20] = '10,"x,y', "11,x,y", "20,x"
    found = rows(table(tmp_path, "\n".join(["a,b,c", *lines])))
    rejects = {each.source: each.reason for each in found if isinstance(each, Reject)}
    assert rejects == {
        "table.csv row 12": "has 4 cells and not 3 (is a quote in it never closed?)",
        "table.csv row 13": "belongs to the quote that row 12 opens",
        "table.csv row 14": "belongs to the quote that row 12 opens",
        "table.csv row 22": "has 2 cells and not 3",
    }
    numbers = [int(each.source.split()[-1]) - 2 for each in found if not isinstance(each, Reject)]
    assert numbers == [int(each.values["a"]) for each in found if not isinstance(each, Reject)]


def test_rows_are_numbered_over_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 200)
    lines = [f"{i},x" if i % 7 == 3 else f'{i},"x\n{i}",y' for i in range(500)]
    found = rows(table(tmp_path, "a,b,c\n" + "\n".join(lines) + "\n"))
    assert sorted(int(each.source.split()[-1]) for each in found) == list(range(2, 502))
    for each in found:
        i = int(each.source.split()[-1]) - 2
        assert isinstance(each, Reject) == (i % 7 == 3)
        assert isinstance(each, Reject) or each.values["a"] == str(i)


def test_only_a_block_of_a_file_is_in_memory(tmp_path):
    path = table(tmp_path, "a,b,c\n" + "1234.5,some words,y\n" * 300_000)
    held = [
        (len(chunk.numbers), chunk.cells.get_total_buffer_size())
        for chunk in delimited.chunks(path, SCHEMA, delimited.Options())
    ]
    assert sum(rows for rows, _ in held) == 300_000
    assert max(size for _, size in held) < 3 * delimited.BLOCK_BYTES < path.stat().st_size


def test_thousands_of_columns_are_read(tmp_path):
    names = [f"x{i}" for i in range(5000)]
    path = table(tmp_path, ",".join([*names, "a", "b", "c"]) + "\n" + ",".join(["0"] * 5000 + ["1", "x", "y"]) + "\n")
    assert [sample.values for sample in rows(path)] == [{"a": "1", "b": "x", "c": "y"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("data-no-rows", "data.options.columns")),
        ("a,b\n1,x\n", ("params-unknown-column", "'c'", "schema", "a, b")),
        ("a,bb,c\n1,x,y\n", ("params-unknown-column", "'b'", "schema", "'bb'")),
        ("a,b,b\n1,x,y\n", ("data-repeated-column", "'b'", "data.options.columns")),
        ("a,,c\n1,x,y\n", ("data-unnamed-column", "column 2", "data.options.columns")),
        ('a,b,c\n1,"' + "x" * 5_000_000, ("data-damaged", "after row 1", "1024 KiB")),
    ],
)
def test_a_faulty_table_is_an_error(tmp_path, text, expected):
    with failing(UserError, *expected, "table.csv"):
        rows(table(tmp_path, text))


def test_an_empty_folder_is_an_error(tmp_path):
    assert not delimited.claims(tmp_path)
    with failing(UserError, "data-other-format"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delimiter": "ab"}, "delimiter must be one character"),
        ({"encoding": "utf-9"}, "there is no encoding 'utf-9'"),
        ({"decimal": ";"}, "decimal must be '.' or ',', not ';'"),
        ({"thousands": "00"}, "thousands must be one mark, not '00'"),
        ({"thousands": "."}, "decimal and thousands cannot both be '.': give both"),
    ],
)
def test_invalid_options_are_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        delimited.Options(**options)
