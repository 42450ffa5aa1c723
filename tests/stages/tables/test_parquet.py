"""Parquet: typed cells, splits, pictures by name or as bytes, and errors."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.core.errors import UserError
from stages.schema import Column, Schema
from stages.tables.sources import Reject, parquet
from tests.support.failing import failing

SCHEMA = Schema((Column("a", "number"), Column("b", "category")), Column("c", "target_class"))


def rows(path, schema=SCHEMA):
    """All samples and rejects, with chunks pickled as between processes."""
    found = []
    for chunk in parquet.chunks(path, schema, parquet.Options()):
        found += parquet.read(pickle.loads(pickle.dumps(chunk)))
    return found


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_cells_are_read_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 2)
    write(tmp_path / "x-train.parquet", c=["y", "n", "y"], a=[1.5, None, 2], b=["u", None, "v"], more=[0, 0, 0])
    write(tmp_path / "x-test.parquet", more=[0], a=[7], c=["y"], b=["u"])
    found = rows(tmp_path)
    assert [(each.source, each.split) for each in found] == [
        ("x-test.parquet row 1", "test"),
        ("x-train.parquet row 1", "train"),
        ("x-train.parquet row 2", "train"),
        ("x-train.parquet row 3", "train"),
    ]
    assert found[2].values == {"a": None, "b": None, "c": "n"}
    assert parquet.columns(tmp_path, parquet.Options()) == ["more", "a", "c", "b"]


def test_pictures_by_name_or_as_bytes(tmp_path):
    schema = Schema((Column("p", "image"),), Column("c", "target_class"))
    write(tmp_path / "t.parquet", p=["x/1.png", "/etc/passwd", None], c=["a", "b", "c"])
    first, second, third = rows(tmp_path, schema)
    assert first.values["p"] == str(tmp_path / "x/1.png")
    assert second == Reject("t.parquet row 2", "/etc/passwd lies outside the table's folder")
    assert third.values["p"] is None
    write(tmp_path / "t.parquet", p=[b"bytes"], c=["a"])
    assert rows(tmp_path, schema)[0].values["p"] == b"bytes"


def test_pictures_in_one_cell_with_their_names(tmp_path):
    """The form of Hugging Face's data sets."""
    schema = Schema((Column("p", "image"),), Column("c", "target_class"))
    cells = [{"bytes": b"picture", "path": "1.png"}, {"bytes": None, "path": "x/2.png"}, None]
    write(tmp_path / "t.parquet", p=cells, c=["a", "b", "c"])
    assert [each.values["p"] for each in rows(tmp_path, schema)] == [b"picture", str(tmp_path / "x/2.png"), None]
    with failing(UserError, "data-nested-column", "'p'"):
        rows(tmp_path, Schema((Column("p", "category"),), schema.target))


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())])
def test_words_stored_as_bytes_are_words(tmp_path, type):
    words = ["Ulm", None, "Köln"]
    stored = pa.array([word and word.encode() for word in words], pa.binary()).cast(type)
    write(tmp_path / "t.parquet", a=[1.0, 2.0, 3.0], b=stored, c=stored)
    assert [(each.values["b"], each.values["c"]) for each in rows(tmp_path)] == [(word, word) for word in words]
    (chunk,) = parquet.chunks(tmp_path, SCHEMA, parquet.Options())
    assert parquet.read_columns(chunk).values["b"].to_pylist() == words


def test_a_row_with_bytes_that_are_not_text_is_rejected(tmp_path):
    write(tmp_path / "t.parquet", a=[1.0, 2.0], b=[b"\xff\xfe", b"Ulm"], c=["x", "y"])
    (chunk,) = parquet.chunks(tmp_path, SCHEMA, parquet.Options())
    with pytest.raises(ValueError, match="UTF8"):
        parquet.read_columns(chunk)
    first, second = parquet.read(chunk)
    assert first == Reject("t.parquet row 1", "b: bytes that are not UTF-8 text") and second.values["b"] == "Ulm"


def test_nested_and_missing_columns_are_an_error(tmp_path):
    path = write(tmp_path / "t.parquet", a=[[1.0]], b=["u"], c=["y"])
    with failing(UserError, "data-nested-column", "'a'"):
        rows(path)
    with failing(UserError, "params-unknown-column", "'b'", "schema", "a, c"):
        rows(write(tmp_path / "t.parquet", a=[1.0], c=["y"]))
    path.write_bytes(path.read_bytes()[:-9])
    with failing(UserError, "data-unreadable", "t.parquet"):
        rows(path)
    with failing(UserError, "data-other-format"):
        rows(tmp_path / "elsewhere.csv")
