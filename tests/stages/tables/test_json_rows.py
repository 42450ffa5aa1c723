"""JSON: objects on lines, lists for splits, and rejected rows."""

from __future__ import annotations

import json as builtin
import pickle

import pytest

from stages.core.errors import UserError
from stages.schema import Column, Schema
from stages.tables.sources import Reject, json_rows
from tests.support.failing import failing

SCHEMA = Schema((Column("said", "text"),), Column("intent", "target_class"))


def rows(path, **options):
    """All samples and rejects, with chunks pickled as between processes."""
    found = []
    for chunk in json_rows.chunks(path, SCHEMA, json_rows.Options(**options)):
        found += json_rows.read(pickle.loads(pickle.dumps(chunk)))
    return found


def test_an_object_on_each_line(tmp_path):
    lines = [b'{"said": "a", "intent": "x", "more": 1}', b"", b"{", b'"word"', b'{"said": "\xff"}', b'{"said": ["a"]}']
    (tmp_path / "train.jsonl").write_bytes(b"\n".join([*lines, b'{"said": "b"}']))
    found = rows(tmp_path)
    rejects = {each.source: each.reason for each in found if isinstance(each, Reject)}
    assert rejects == {
        "train.jsonl row 2": "is not JSON: Expecting property name enclosed in double quotes at character 1",
        "train.jsonl row 3": "is neither an object nor an array",
        "train.jsonl row 4": "is not UTF-8",
        "train.jsonl row 5": "the column 'said' holds nested values (an array): flatten it first",
    }
    good = [each for each in found if not isinstance(each, Reject)]
    assert [(each.split, each.values) for each in good] == [
        ("train", {"said": "a", "intent": "x"}),
        ("train", {"said": "b", "intent": None}),
    ]


def test_a_list_for_each_split(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(builtin.dumps({"train": [["a", "x"]], "val": [["b", "y"], ["c"]], "oos_train": [["d", "z"]]}))
    found = rows(path, columns=("said", "intent"))
    assert [each.split for each in found if not isinstance(each, Reject)] == ["train", "val"]
    assert found[2] == Reject("data.json val row 2", "has 1 cells, and data.options.columns names 2")
    chosen = rows(path, columns=("said", "intent"), lists={"oos_train": "test"})
    assert [(each.split, each.values["intent"]) for each in chosen] == [("test", "z")]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("[", {}, ("data-unreadable",)),
        ("3", {}, ("data-no-rows",)),
        ('{"some": []}', {}, ("data-unknown-list", "data.options.lists", "some")),
        (
            '{"some": []}',
            {"lists": {"sum": "test"}},
            ("data-unknown-list", "'sum'", "data.options.lists", "some"),
        ),
    ],
)
def test_a_faulty_file_is_an_error(tmp_path, text, options, expected):
    (tmp_path / "data.json").write_text(text)
    with failing(UserError, *expected, "data.json"):
        rows(tmp_path, **options)


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match=r"lists\.oos must be train, val or test, not 'tset'"):
        json_rows.Options(lists={"oos": "tset"})
