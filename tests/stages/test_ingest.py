"""The stages fetch and ingest, run by their commands on real files: the table and the rejects."""

import csv
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages import fetch, ingest
from stages.core import progress
from stages.core.errors import UserError
from stages.schema import Column, Schema
from stages.tables import arrow, rows, workers, writer
from stages.tables.rows import Layout
from stages.tables.sources import image_folder
from tests.support.failing import codes, failing, names
from tests.support.project import ROOT

SCHEMA = Schema((Column("image", "image"),), Column("label", "target_class"))


def png(seed=0, side=4):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Write {path: content} below a folder."""

    def write(files):
        for path, content in files.items():
            (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / path).write_bytes(content)
        return tmp_path / "set"

    return write


@pytest.fixture
def read(tmp_path):
    """Ingest a path; return the rows, and the rejects as {source: reason}."""

    def run(path, format="image_folder", workers=2):
        ingest.ingest(path, format, {}, Layout(SCHEMA), tmp_path / "table", tmp_path / "rejects", workers)
        with open(tmp_path / "rejects", newline="", encoding="utf-8") as file:
            return pq.read_table(tmp_path / "table").to_pylist(), dict(list(csv.reader(file))[1:])

    return run


def stage(name, *arguments, cwd):
    """Run a stage's command in a folder with only dvc.yaml and params.yaml."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_built_in_data_become_a_table(clone):
    assert stage("fetch", "data/builtin", cwd=clone).returncode == 0
    ran = stage("ingest", "data/builtin/digits", "data/table.parquet", "data/rejects.csv", cwd=clone)
    assert ran.stdout.startswith("data/builtin/digits: 1,797 rows, 0 rejects, "), ran.stderr
    assert (clone / "data/rejects.csv").read_bytes() == b"source,reason\n"
    table = pq.read_table(clone / "data/table.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "_id": "string",
        "_split": "string",
        "_source": "string",
        "image": "binary",
        "label": "string",
        "image.width": "int64",
        "image.height": "int64",
        "image.mode": "string",
        "image.frames": "int64",
        "image.brightness": "double",
        "image.contrast": "double",
    }
    assert table["_source"][0].as_py() == "0/0000.png"
    assert sorted(os.listdir(clone / "data")) == ["builtin", "rejects.csv", "table.parquet"]


def test_an_error_is_reported_in_one_line(clone):
    ran = stage("ingest", "data/raw/absent", "data/table.parquet", "data/rejects.csv", cwd=clone)
    assert (ran.returncode, ran.stderr.count("\n"), codes(ran.stderr)) == (1, 1, ["data-not-found"])
    names(ran.stderr, "data/raw/absent")
    assert not os.listdir(clone / "data")


def test_digits_equal_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    fetch.digits(tmp_path)
    images, labels = load_digits(return_X_y=True)
    for index in (0, 13, 1796):
        written = Image.open(tmp_path / f"{labels[index]}/{index:04d}.png")
        assert np.asarray(written).ravel().tolist() == [round(value * 255 / 16) for value in images[index]]
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == 1797


def test_a_row_for_each_sample(folder, read):
    picture = png()
    rows, rejects = read(folder({"train/cat/1.png": picture}))
    gray = np.asarray(Image.open(io.BytesIO(picture)))
    assert rows == [
        {
            "_id": hashlib.sha256(struct.pack("<q", len(picture)) + picture).hexdigest(),
            "_split": "train",
            "_source": "train/cat/1.png",
            "image": picture,
            "label": "cat",
            "image.width": 4,
            "image.height": 4,
            "image.mode": "L",
            "image.frames": 1,
            "image.brightness": round(gray.mean(), 4),
            "image.contrast": round(gray.std(), 4),
        }
    ]
    assert rejects == {}


def test_idx_becomes_pictures(tmp_path, read):
    arrays = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    for name, body in (("images-idx3", arrays), ("labels-idx1", np.array([7, 0, 7], np.uint8))):
        header = struct.pack(f">BBBB{body.ndim}I", 0, 0, 8, body.ndim, *body.shape)
        (tmp_path / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(header + body.tobytes()))
    rows, _ = read(tmp_path, "idx")
    assert [(row["label"], row["_split"], row["image.width"]) for row in rows] == [(c, "train", 4) for c in "707"]
    assert [np.asarray(Image.open(io.BytesIO(row["image"]))).tolist() for row in rows] == arrays.tolist()


def test_copies_of_a_picture_with_two_labels_have_the_same_id(folder, read):
    rows, _ = read(folder({"cat/1.png": png(), "dog/2.png": png(), "dog/3.png": png(seed=1)}))
    assert len({row["_id"] for row in rows}) == 2


def test_ids_distinguish_all_values():
    values = [[b""], [""], [None], [b"ab", b"c"], [b"a", b"bc"], [1.0], [-1.0], ["é"]]
    ids = [arrow.identity(features) for features in values]
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(values) - 1
    assert arrow.identity([float("nan")]) == arrow.identity([None])
    assert arrow.identity([1.0]) == hashlib.sha256(struct.pack("<qd", 8, 1.0)).hexdigest()


@pytest.mark.parametrize(
    ("values", "type"),
    [
        ((b"a", b"", None, b"bc"), pa.binary()),
        (("é", "", None), pa.string()),
        (np.array(["L", "RGB"], object), pa.string()),
        (np.array([3, -1]), pa.int64()),
        ((1.5, 2.5), pa.float64()),
        *(((), type) for type in (pa.binary(), pa.string(), pa.int64(), pa.float64())),
    ],
)
def test_columns_equal_those_of_pyarrow(values, type):
    made = arrow.array(values, type)
    made.validate(full=True)
    assert made.equals(pa.array(values, type))


def test_a_missing_number_is_not_a_number():
    assert np.isnan(arrow.array((None,), pa.float64())[0].as_py())


def test_broken_samples_do_not_stop_ingest(folder, read):
    path = folder(
        {
            "cat/1.png": png(1),
            "cat/2 empty.png": b"",
            "cat/3 text.png": b"not pixels",
            "cat/4 cut.png": png(4, side=80)[:3000],
            "cat/5.png": png(5),
            "README": b"beside",
        }
    )
    os.symlink("nothing", path / "cat/6 gone.png")
    rows, rejects = read(path)
    assert [row["_source"] for row in rows] == ["cat/1.png", "cat/5.png"]
    assert [row["image.width"] for row in rows] == [4, 4]
    assert rejects == {
        "README": "lies beside the class folders, not in one",
        "cat/2 empty.png": "empty: no bytes",
        "cat/3 text.png": "not a picture that Pillow can read (begins with b'not pixe')",
        "cat/4 cut.png": "broken picture: image file is truncated",
        "cat/6 gone.png": "cannot be read: No such file or directory",
    }


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
def test_an_unreadable_file_is_a_reject(folder):
    path = folder({"cat/1.png": png()})
    (path / "cat/1.png").chmod(0)
    (chunk,) = image_folder.chunks(path, SCHEMA, image_folder.Options())
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read everything
    try:
        _, rejects = rows.encode(chunk, "image_folder", Layout(SCHEMA))
    finally:
        os.seteuid(user)
    assert rejects == [("cat/1.png", "cannot be read: Permission denied")]


def test_names_that_are_not_utf_8_are_escaped(folder, read):
    path = folder({"cat/1.png": png()})
    for name, content in ((b"/d\xffg.png", png()), (b"/d\xfeg.png", b"")):
        with open(os.fsencode(path / "cat") + name, "wb") as file:
            file.write(content)
    rows, rejects = read(path)
    assert rows[1]["_source"] == r"cat/d\xffg.png"
    assert list(rejects) == [r"cat/d\xfeg.png"]


def test_data_without_a_readable_sample_are_an_error(folder, read, tmp_path):
    path = folder({f"cat/{number}.png": b"" for number in range(5)})
    expected = (
        "data-no-rows",
        "set",
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "2 more",
    )
    with failing(UserError, *expected):
        read(path)


def test_empty_class_folders_are_an_error(tmp_path, read):
    (tmp_path / "set/cat").mkdir(parents=True)
    with failing(
        UserError,
        "data-no-rows",
        "set",
    ):
        read(tmp_path / "set")


def test_a_failed_ingest_leaves_no_output(clone):
    (clone / "data/raw/mine/cat").mkdir(parents=True)
    (clone / "data/raw/mine/cat/1.png").write_bytes(b"")
    (clone / "data/table.parquet").write_bytes(b"of an earlier run")
    ran = stage("ingest", "data/raw/mine", "data/table.parquet", "data/rejects.csv", cwd=clone)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert sorted(os.listdir(clone / "data")) == ["raw", "table.parquet"]


@pytest.mark.parametrize("seed", range(3))
def test_output_does_not_depend_on_the_number_of_workers(folder, tmp_path, monkeypatch, seed):
    draw = random.Random(seed)
    monkeypatch.setattr(image_folder, "CHUNK_FILES", draw.randint(1, 9))
    monkeypatch.setattr(writer, "GROUP_ROWS", draw.randint(1, 30))
    kinds = [png(seed), png(seed + 1, side=30), b"", b"text", png(seed, side=60)[:300]]
    names = {f"{draw.choice('abc')}/{draw.random()}.png": draw.choice(kinds) for _ in range(60)}
    path = folder({"a/sound.png": png(), "beside.txt": b""} | names)
    written = set()
    for cores in (1, 2, 5):
        table, rejects = tmp_path / f"table {cores}", tmp_path / f"rejects {cores}"
        ingest.ingest(path, "image_folder", {}, Layout(SCHEMA), table, rejects, cores)
        written.add((table.read_bytes(), rejects.read_bytes()))
    assert len(written) == 1


def test_row_groups_are_bounded_in_rows_and_bytes(folder, read, tmp_path, monkeypatch):
    path = folder({f"cat/{number:02d}.png": png(number, side=30) for number in range(20)})
    monkeypatch.setattr(image_folder, "CHUNK_FILES", 2)
    monkeypatch.setattr(writer, "GROUP_ROWS", 6)
    rows, _ = read(path)
    groups = pq.ParquetFile(tmp_path / "table").metadata
    assert [groups.row_group(each).num_rows for each in range(groups.num_row_groups)] == [6, 6, 6, 2]
    assert [row["_source"] for row in rows] == [f"cat/{number:02d}.png" for number in range(20)]
    monkeypatch.setattr(writer, "GROUP_BYTES", 3 * len(rows[0]["image"]))
    read(path)
    assert pq.ParquetFile(tmp_path / "table").metadata.row_group(0).num_rows == 4


def test_pictures_are_not_compressed_again(folder, read, tmp_path):
    read(folder({"cat/1.png": png()}))
    group = pq.ParquetFile(tmp_path / "table").metadata.row_group(0)
    stored = {group.column(each).path_in_schema: group.column(each).compression for each in range(group.num_columns)}
    assert stored.pop("image") == "UNCOMPRESSED"
    assert set(stored.values()) == {"ZSTD"}


def test_only_a_few_chunks_are_in_memory():
    taken = []
    results = workers.in_order(abs, (taken.append(number) or -number for number in range(100)), 2)
    assert next(results) == 0
    assert len(taken) == 5
    assert list(results) == list(range(1, 100))


def _end(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_message():
    with failing(UserError, "data-memory"):
        list(workers.in_order(_end, iter(range(3)), 2))


def test_progress_is_printed_in_lines(folder, read, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_S", 0)
    read(folder({"cat/1.png": png(), "cat/2.png": b""}))
    assert capsys.readouterr().err.startswith("2 samples, ")


def test_help_is_quick_and_plain(tmp_path):
    ran = stage("ingest", "--help", cwd=tmp_path)
    assert "Read every sample in DATA into TABLE" in ran.stdout


TABLE = Schema((Column("rooms", "number"),), Column("price", "target_number"))
ROWS = [
    {"rooms": 3, "price": 9.5, "town": "Ulm", "fold": "train"},
    {"rooms": 4, "price": 8.0, "town": " ", "fold": "Validation"},
    {"rooms": 5, "price": 7.0, "town": "Bonn", "fold": "dev"},
    {"rooms": 6, "price": 6.0, "town": "Bonn", "fold": None},
]


def tabled(folder, form):
    """The rows as a file of a format."""
    path = folder / f"rows.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif form == "json":
        path.write_text(json.dumps({"train": ROWS}))
    else:
        with path.open("w", newline="") as file:
            csv.DictWriter(file, ROWS[0]).writeheader()
            csv.DictWriter(file, ROWS[0]).writerows(ROWS)
    return path


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_the_column_to_split_by_is_kept(tmp_path, form):
    def run(by, column):
        layout, written = Layout(TABLE, by, column), (tmp_path / "table", tmp_path / "rejects")
        ingest.ingest(tabled(tmp_path, form), form, {}, layout, *written, 1)
        return pq.read_table(tmp_path / "table").to_pydict()

    plain = run("hash", "none")
    assert "_split_by" not in plain
    assert run("group", "town") == plain | {"_split_by": ["Ulm", None, "Bonn", "Bonn"]}
    assert [float(cell) for cell in run("time", "rooms")["_split_by"]] == [3, 4, 5, 6]
    assert run("column", "fold") == plain | {"_split": ["train", "val", "dev", "(blank)"]}
    with failing(UserError, "params-unknown-column", "'twon'", "split.column", "'town'"):
        run("group", "twon")


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_further_columns_are_kept_as_texts(tmp_path, form):
    def run(*keep, by=("hash", "none")):
        layout, written = Layout(TABLE, *by, keep), (tmp_path / "table", tmp_path / "rejects")
        ingest.ingest(tabled(tmp_path, form), form, {}, layout, *written, 1)
        return pq.read_table(tmp_path / "table").to_pydict()

    kept = {"town": ["Ulm", None, "Bonn", "Bonn"], "fold": ["train", "Validation", "dev", None]}
    assert run("town", "fold") == run() | kept
    assert run("town", by=("group", "town")) == run() | {"_split_by": kept["town"], "town": kept["town"]}
    with failing(UserError, "params-unknown-column", "'twon'", "schema.keep", "'town'"):
        run("twon")


def test_pictures_are_grouped_by_their_folder(folder, tmp_path):
    path = folder({f"{place}/1.png": png(seed) for seed, place in enumerate(["cat/a", "dog/a", "dog/b/c"])})

    def run(column, form="image_folder"):
        layout = Layout(SCHEMA, "group", column)
        ingest.ingest(path, form, {}, layout, tmp_path / "table", tmp_path / "rejects", 1)
        return pq.read_table(tmp_path / "table").to_pydict()

    assert run("folder")["_split_by"] == ["a", "a", "c"]
    with failing(UserError, "params-unknown-column", "'patient'", "split.column", "folder"):
        run("patient")
    with failing(UserError, "params-unknown-column", "(idx)", "'folder'", "split.column"):
        run("folder", "idx")
