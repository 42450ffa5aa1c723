"""What is not read is named: files of other formats, deeper folders, and files of a folder whose columns differ."""

from __future__ import annotations

import pandas as pd
import pytest

from flows.intake import guess
from stages.core.errors import UserError
from stages.ingest import ingest
from stages.schema import Column, Schema
from stages.tables import overlooked
from stages.tables.rows import Layout
from tests.support.failing import failing

SCHEMA = Schema((Column("area", "number"),), Column("price", "target_number"))


def write(folder, name, **columns):
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame({"area": [1.5, 2.5], "price": [3.0, 4.0], **columns})
    frame.to_csv(folder / f"{name}.csv", index=False)
    frame.to_parquet(folder / f"{name}.parquet")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_of_a_folder_whose_columns_differ_are_an_error(tmp_path, form):
    folder = tmp_path / "houses"
    write(folder, "a")
    write(folder, "b", garden=["yes", "no"], town=["Ulm", "Bonn"])
    write(folder, "c")
    expected = ("data-differing-columns", f"b.{form}", "'garden', 'town'")
    with failing(UserError, *expected):
        ingest(folder, form, {}, Layout(SCHEMA), tmp_path / "t", tmp_path / "r", 1)
    with failing(UserError, *expected):
        guess.table(folder, form)
    pd.DataFrame({"area": [1.0]}).to_csv(folder / "b.csv", index=False)
    pd.DataFrame({"area": [1.0]}).to_parquet(folder / "b.parquet")
    with failing(UserError, "data-differing-columns", f"b.{form}", "'price'"):
        ingest(folder, form, {}, Layout(SCHEMA), tmp_path / "t", tmp_path / "r", 1)
    write(folder, "b")
    assert ingest(folder, form, {}, Layout(SCHEMA), tmp_path / "t", tmp_path / "r", 1).rows == 6


def test_the_order_of_columns_may_differ(tmp_path):
    (tmp_path / "a.csv").write_text("area,price\n1,2\n")
    (tmp_path / "b.csv").write_text("price,area\n3,4\n")
    assert ingest(tmp_path, "csv", {}, Layout(SCHEMA), tmp_path / "t", tmp_path / "r", 1).rows == 2


def test_files_and_folders_that_are_not_read_are_named(tmp_path):
    folder = tmp_path / "houses"
    write(folder, "a")
    write(folder / "more", "b")
    (folder / "notes.txt").touch()
    (folder / ".hidden").touch()
    assert overlooked.notes(folder, "csv") == [
        "2 files (a.parquet, notes.txt) are not read, since csv does not read such files",
        "1 folder (more) is not read: move its tables beside the others",
    ]
    assert overlooked.notes(folder / "a.csv", "csv") == []


def test_folders_below_class_folders_are_named(tmp_path):
    for path in ("cats/a.png", "cats/old/b.png", "cats/old/c.png", "dogs/new/deep/d.png", "dogs/.DS_Store"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert overlooked.notes(tmp_path, "image_folder") == [
        "3 files lie in folders below their class's, such as cats/old/b.png: the class is the upper folder, and the"
        " names below are dropped: 'old' (2), 'new/deep' (1): if those are the classes, move them up",
        "1 hidden and system files are ignored: dogs/.DS_Store",
    ]
    splits = tmp_path / "splits"
    for path in ("train/cats/a.png", "train/cats/old/b.png", "test/cats/c.png"):
        (splits / path).parent.mkdir(parents=True, exist_ok=True)
        (splits / path).touch()
    (note,) = overlooked.notes(splits, "image_folder")
    assert note.startswith("1 files lie in folders below their class's, such as train/cats/old/b.png")
