"""Reading by column against reading by row: equal rows, ids and rejects for any cells."""

from __future__ import annotations

import datetime
import math
import random
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import prepare
from stages.schema import Column, Schema, kind
from stages.schema.kinds import category, number
from stages.tables import arrow, sources, table
from stages.tables.rows import Layout, by_column, by_row, encode
from stages.tables.sources import delimited, parquet

SCHEMA = Schema(
    (Column("n", "number"), Column("c", "category"), Column("t", "text"), Column("m", "number")),
    Column("y", "target_class"),
)
AMOUNT = Schema((Column("n", "number"), Column("c", "category")), Column("y", "target_number"))
NASTY = [
    *(
        "",
        " ",
        "7",
        " 7 ",
        "\t7\u2003",
        "+7",
        "-0",
        "0",
        "007",
        "1e5",
        "1E-400",
        "1e400",
        "4.9e-324",
        "3.5e38",
        "1_000",
    ),
    *("1,5", "1,234.5", "1 000", "0x10", "1d5", "inf", "-Infinity", "nan", "NaN", "nAn", "-nan", "nan(1)", "NA", "?"),
    *("\u0663", "\u0661\u0662", "\u00bd", "\u2212" + "5", "\u00a07", "\x1c7", "x" * 60, "gr\u00f6\u00dfe", "1\0", "\0"),
    *("a word", "A word", "null", "None", "True", "1" * 400, "\U0001f600", "e\u0301", "\ufeff7", '"quoted"', "=1+1"),
]


def both(form, chunk, schema):
    """A chunk converted by column and by row."""
    source = sources.source(form)
    return by_column(source.read_columns(chunk), Layout(schema)), by_row(source.read(chunk), Layout(schema))


def same(one, other):
    assert one[1] == other[1]
    assert one[0].schema == other[0].schema
    for name in one[0].schema.names:
        a, b = one[0].column(name), other[0].column(name)
        a.validate(full=True)
        if pa.types.is_floating(a.type):  # to the bit: NaN and -0.0
            assert a.null_count == b.null_count == 0
            a, b = (np.asarray(values).view(np.int64).tolist() for values in (a, b))
            assert a == b, name
        else:
            assert a.to_pylist() == b.to_pylist(), name


def csv_chunks(path, rows, schema=SCHEMA, **options):
    """Chunks of a CSV file whose cells are all quoted, text or bytes."""
    cells = [[cell if isinstance(cell, bytes) else cell.encode() for cell in row] for row in rows]
    lines = [b",".join(b'"' + cell.replace(b'"', b'""') + b'"' for cell in row) for row in cells]
    header = ",".join([*(column.name for column in schema.features), schema.target.name]).encode()
    path.write_bytes(b"\n".join([header, *lines]) + b"\n")
    return list(delimited.chunks(path, schema, delimited.Options(**options)))


@pytest.mark.parametrize("value", [value for value in NASTY if "\0" not in value])
def test_an_unusual_cell_among_plain_ones(tmp_path, value):
    (chunk,) = csv_chunks(tmp_path / "t.csv", [["1.5", "a", "b c", "2", "y"], [value] * 5, ["3", "", "", "", "n"]])
    same(*both("csv", chunk, SCHEMA))


@pytest.mark.parametrize("seed", range(6))
def test_random_cells_read_by_column_equal_those_by_row(tmp_path, seed):
    draw = random.Random(seed)
    plain = [f"{draw.gauss(0, 10):.4g}" for _ in range(20)]
    for schema in (SCHEMA, AMOUNT):
        width = len(schema.features) + 1
        pool = plain * 20 + [value for value in NASTY if "\0" not in value] * (seed % 3)
        rows = [[draw.choice(pool) for _ in range(width)] for _ in range(200)]
        meaning = {"missing": ["", "?", "NaN"], "replace": {"NA": "gone", "a word": " 8 "}} if seed % 2 else {}
        for chunk in csv_chunks(tmp_path / "t.csv", rows, schema, **meaning):
            same(*both("csv", chunk, schema))


@pytest.mark.parametrize("marks", [(",", ""), (".", ","), (",", "."), (",", " "), (".", "'"), (",", "\u202f")])
def test_numbers_with_other_marks_read_by_column_equal_those_by_row(tmp_path, marks):
    draw = random.Random(0)
    point, mark = marks
    good = [f"{draw.uniform(-1e7, 1e7):_.2f}".replace(".", point).replace("_", mark) for _ in range(400)]
    odd = ["".join(draw.choices(f"0123456789.,+-e{mark}", k=draw.randint(1, 9))) for _ in range(20)]
    options = {"decimal": point, "thousands": mark, "replace": {"NA": "", "a word": f"7{point}5"}}
    for schema in (SCHEMA, AMOUNT):
        for pool in (good, ["a word", "NA", "?", "many", *good], [value for value in NASTY if "\0" not in value], odd):
            rows = [[draw.choice(pool) for _ in range(len(schema.features) + 1)] for _ in range(100)]
            (chunk,) = csv_chunks(tmp_path / "t.csv", rows, schema, **options)
            same(encode(chunk, "csv", Layout(schema)), by_row(delimited.read(chunk), Layout(schema)))
            if pool[-1] == good[-1]:
                same(*both("csv", chunk, schema))  # no chunk is read row by row


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_are_nearly_numbers(tmp_path, seed):
    draw = random.Random(seed)
    texts = ["".join(draw.choices("0123456789.eE+-_ naif()x\u0663", k=draw.randint(1, 6))) for _ in range(4000)]
    texts += [f"{draw.uniform(-9, 9)!r}e{draw.randint(-330, 310)}" for _ in range(500)]
    for text in texts:
        found = arrow._numbers(pa.array([text]))
        try:
            expected = float(text)
        except ValueError:
            assert found is None, text
        else:
            assert repr(found.tolist()) == repr([expected]), text


@pytest.mark.parametrize("cell", [b"\xff", b"1\0"])
def test_a_chunk_with_a_cell_that_is_not_text_is_read_row_by_row(tmp_path, cell):
    (chunk,) = csv_chunks(tmp_path / "t.csv", [["1", "a", "b", "2", "y"], [b"1", cell, b"b", b"2", b"y"]])
    with pytest.raises(ValueError):
        delimited.read_columns(chunk)
    batch, rejects = encode(chunk, "csv", Layout(SCHEMA))
    assert batch.column("_source").to_pylist() == ["t.csv row 2"]
    assert [reject.source for reject in rejects] == ["t.csv row 3"]


def test_rows_with_too_few_cells_are_rejected_by_column_and_by_row(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("n,c,y\n1,a,2\n1,a\nx,b,3\n4,b,5\n6,c,inf\n")
    (chunk,) = delimited.chunks(path, AMOUNT, delimited.Options())
    by_column, by_row = both("csv", chunk, AMOUNT)
    same(by_column, by_row)
    assert [reject.source for reject in by_column[1]] == ["train.csv row 3", "train.csv row 4", "train.csv row 6"]
    assert by_column[0].column("_split").to_pylist() == ["train", "train"]


@pytest.mark.parametrize(
    ("values", "type"),
    [
        ([1, None, -(2**53) - 1, 2**63 - 1], pa.int64()),
        ([1, 2**64 - 1, None], pa.uint64()),
        ([1.5, math.nan, None, -0.0, 0.0, -math.nan, 1e39, math.inf], pa.float64()),
        ([0.1, None, 3.4e38], pa.float32()),
        ([True, None, False], pa.bool_()),
        (["a", None, "a", "1,5", " 2 "], pa.dictionary(pa.int8(), pa.string())),
        (["a", None, "7"], pa.large_string()),
        ([b"7", None, b"x"], pa.binary()),
        ([Decimal("1.50"), None], pa.decimal128(5, 2)),
        ([datetime.date(2020, 1, 2), None], pa.date32()),
        ([datetime.datetime(2020, 1, 2), None], pa.timestamp("us")),
        ([None, None], pa.null()),
    ],
)
def test_typed_columns_of_parquet(tmp_path, values, type):
    cells = pa.array(values, type)
    labels = pa.array(["y"] * len(values))
    pq.write_table(pa.table({"n": cells, "c": cells, "t": labels, "m": cells, "y": labels}), tmp_path / "t.parquet")
    (chunk,) = parquet.chunks(tmp_path / "t.parquet", SCHEMA, parquet.Options())
    same(*both("parquet", chunk, SCHEMA))
    only = Schema((Column("c", "category"),), Column("y", "target_class"))
    (chunk,) = parquet.chunks(tmp_path / "t.parquet", only, parquet.Options())
    same(*both("parquet", chunk, only))


def test_an_int_that_is_too_large_is_an_error():
    with pytest.raises(ValueError, match="is not a finite 32-bit number"):
        number.raw(10**400)


def test_ids_computed_by_column_equal_those_by_row():
    words, blobs = ["a", None, "", "größe"], [b"\0", b"", None, b"xyz"]
    numbers = [1.0, math.nan, -0.0, 1e300]
    made = [arrow.array(words, pa.string()), arrow.array(blobs, pa.binary()), arrow.array(numbers, pa.float64())]
    rows = list(zip(words, blobs, numbers, strict=True))
    assert arrow.identities(made).to_pylist() == [arrow.identity(row) for row in rows]
    part = [cells.slice(1, 2) for cells in made]
    assert arrow.identities(part).to_pylist() == [arrow.identity(row) for row in rows[1:3]]
    assert arrow.identities([cells.slice(4) for cells in made]).to_pylist() == []


def test_the_leading_bits_of_an_id_give_the_same_split_as_the_whole_id():
    names = [arrow.identity([float(i)]) for i in range(500)]
    keys = table.keys(pa.chunked_array([names[:3], names[3:]]))
    assert keys.tolist() == [int(name[:16], 16) for name in names]
    shares = [int(name[:13], 16) / 16**13 for name in names]
    found = prepare.assign(keys, np.full(500, None, object), 0.2, 0.3)
    assert found.tolist() == ["test" if x < 0.3 else "val" if x < 0.5 else "train" for x in shares]


def test_raw_values_are_read_as_they_were_written(tmp_path, monkeypatch):
    words = ["a", None, "b", "a", "", None, "c"] * 3
    numbers = [1.5, math.nan, -0.0] * 7
    blobs = [b"x", None, b"y"] * 7
    whole = pa.table({"w": words, "n": pa.array(numbers, pa.float64()), "b": pa.array(blobs, pa.binary())})
    pq.write_table(whole, tmp_path / "t", row_group_size=4)
    for size in (1, 300, table.PIECE_BYTES):
        monkeypatch.setattr(table, "PIECE_BYTES", size)
        positions = np.array([0, 1, 5, 11, 12, 20])
        for name, values in (("w", words), ("n", numbers), ("b", blobs)):
            read = [value for chunk in table.Values(tmp_path / "t", name, positions) for value in chunk]
            assert repr([float(x) if name == "n" else x for x in read]) == repr([values[i] for i in positions])


def test_no_worker_loads_pandas(tmp_path):
    """Loading pandas would cost each worker a third of a second and 60 MB."""
    (chunk,) = csv_chunks(tmp_path / "t.csv", [["1", "a", "b", "", "y"], ["x", "a", "b", "2", "y"]])
    code = (
        "import pickle, sys; from stages.tables import rows;"
        f"chunk, schema = pickle.loads(open({str(tmp_path / 'c')!r}, 'rb').read());"
        "rows.encode(chunk, 'csv', rows.Layout(schema)); print('pandas' in sys.modules)"
    )
    import pickle
    import subprocess

    (tmp_path / "c").write_bytes(pickle.dumps((chunk, SCHEMA)))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_counts_of_words_by_chunk_equal_counts_one_by_one():
    values = ["b", None, "a", "b", "", "c", "a"]
    fitted = category.fit([values, np.array(values, object)], category.Options())
    assert fitted["codes"] == {"a": 2, "b": 3, "c": 4}
    assert category.transform(values, fitted)[:, 0].tolist() == [3, 0, 2, 3, 0, 4, 2]
    assert kind("number").transform(np.array([1.0, np.nan]), {})[0, 0] == 1.0
