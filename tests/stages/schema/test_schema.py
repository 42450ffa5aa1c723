"""Blocks, encoding, dumping and sending of a schema, with toy kinds."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

import stages.schema.kinds
from serving.triton import wire
from stages.schema import Column, Schema, Tensor
from tests.support.toy_kinds import TOY

LEVEL = {"unit": 1.0, "mean": 0.0, "std": 1.0}


LABELS = {"labels": ["0", "1"], "counts": [1, 1]}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Add the toy kinds to this process; return a function that makes schemas of columns {name: kind}."""
    for path, text in TOY.items():
        if path.startswith("stages/schema/kinds/"):
            name = path.removeprefix("stages/schema/kinds/").removesuffix(".py")
            (tmp_path / f"{name}.py").write_text(text.lstrip(), encoding="utf-8")
            monkeypatch.delitem(sys.modules, f"stages.schema.kinds.{name}", raising=False)
    monkeypatch.setattr(stages.schema.kinds, "__path__", [*stages.schema.kinds.__path__, str(tmp_path)])
    fitted = {"level": LEVEL, "remark": {"words": ["a", "ä"]}}

    def schema(**columns):
        features = tuple(Column(name, kind, {}, fitted[kind]) for name, kind in columns.items())
        return Schema(features, Column("grade", "target_class", {}, LABELS))

    yield schema
    for name in ("level", "remark"):
        sys.modules.pop(f"stages.schema.kinds.{name}", None)
        vars(stages.schema.kinds).pop(name, None)


def test_blocks_are_in_order_of_first_appearance(toy):
    blocks = toy(note="remark", a="level", other="remark", b="level").blocks()
    assert [(block.name, [column.name for column in block.columns]) for block in blocks] == [
        ("note", ["note"]),
        ("level", ["a", "b"]),
        ("other", ["other"]),
    ]
    assert [block.tensor.shape for block in blocks] == [(1,), (2,), (1,)]


def test_a_column_named_like_a_packed_kind_is_an_error(toy):
    with pytest.raises(ValueError, match="the column 'level' has the name of a kind whose columns form one array"):
        toy(a="level", level="remark").blocks()


def test_a_packed_column_may_have_the_name_of_its_kind(toy):
    assert [block.name for block in toy(level="level", a="level").blocks()] == ["level"]


def test_inputs_are_single_raw_values(toy):
    inputs = toy(a="level", note="remark").inputs()
    assert inputs == {"a": Tensor("float64", (1,)), "note": Tensor("str", (1,), optional=True)}


def test_encoded_columns_of_a_block_keep_their_order(toy):
    schema = toy(a="level", note="remark", b="level")
    arrays = schema.encode({"b": [5.0, 6.0], "note": ["ä", "new"], "a": np.array([1.0, 2.0])})
    assert {name: array.tolist() for name, array in arrays.items()} == {"level": [[1, 5], [2, 6]], "note": [[3], [1]]}


@pytest.mark.parametrize("sent", [{"note": [None, None]}, {"note": ["", ""]}, {}])
def test_all_values_of_an_absent_optional_column_are_missing(toy, sent):
    arrays = toy(a="level", note="remark").encode({"a": [1.0, 2.0]} | sent)
    assert arrays["note"].tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"note": ["a"]}, "the column 'a' is missing"),
        ({"a": [1.0], "b": [1.0]}, "unknown column 'b': this model takes a, note"),
        ({"a": [float("inf")]}, "no finite number"),
        ({"a": ["high"]}, "could not convert string to float"),
    ],
)
def test_a_value_that_cannot_be_encoded_is_an_error(toy, sent, words):
    with pytest.raises(ValueError, match=words):
        toy(a="level", note="remark").encode(sent)


def test_the_encoding_of_a_row_does_not_depend_on_its_batch(toy):
    schema = toy(a="level", note="remark")
    raw = {"a": [0.1, 0.2, 0.3], "note": ["a", None, "ä"]}
    whole = schema.encode(raw)
    for i in range(3):
        alone = schema.encode({name: [values[i]] for name, values in raw.items()})
        assert {name: array.tobytes() for name, array in alone.items()} == {
            name: array[i : i + 1].tobytes() for name, array in whole.items()
        }


def test_a_schema_survives_dump_and_load(toy, tmp_path):
    schema = toy(größe="level", note="remark")
    schema.dump(tmp_path / "one.json")
    again = Schema.load(tmp_path / "one.json")
    again.dump(tmp_path / "two.json")
    assert again == schema
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert "größe" in (tmp_path / "one.json").read_text(encoding="utf-8")


class Server:
    """A stub of a Triton client: it keeps what is sent, and returns no rows."""

    def infer(self, model, inputs, client_timeout, request_id):
        self.sent = {tensor.name(): tensor for tensor in inputs}
        return self

    def as_numpy(self, name):
        return np.empty((0, 1), object)


def test_a_missing_value_is_sent_as_blank(toy):
    server = Server()
    wire.ask(server, "m", toy(a="level", note="remark"), {"a": [1.0, 2.0], "note": ["ä", None]})
    content = server.sent["note"]._get_content()
    assert content == struct.pack("<I", 2) + "ä".encode() + struct.pack("<I", 0)


def test_an_absent_optional_column_is_not_sent(toy):
    server = Server()
    wire.ask(server, "m", toy(a="level", note="remark"), {"a": [1.0]})
    assert list(server.sent) == ["a"]
