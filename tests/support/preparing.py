"""Tables to prepare, and a function that runs the stage on them."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stages import prepare
from stages.schema.kinds import image
from stages.settings import params
from stages.tables import table
from stages.tables.arrays import SPLITS, open_split
from tests.support.project import ROOT

TYPES = pa.schema(
    {name: pa.string() for name in ("_id", "_split", "_source")} | {"image": pa.binary(), "label": pa.string()}
)


PATHS = [Path(name) for name in ("data/table.parquet", "data/quarantine.csv", "data/arrays", "data/schema.json")]


def name(sample):
    return hashlib.sha256(str(sample).encode()).hexdigest()


def row(number, label="cat", split=None, sample=None, gray=None):
    """One row of a table; equal `sample`s are the same picture."""
    sample = number if sample is None else sample
    pixels = np.frombuffer(bytes.fromhex(name(sample))[:6], np.uint8).reshape(3, 2)
    return {
        "_id": name(sample),
        "_split": split,
        "_source": f"{label}/{number}.png",
        "image": image.raw(pixels if gray is None else np.full((3, 2), gray, np.uint8)),
        "label": label,
    }


def many(count=60, **columns):
    return [row(number, "cat" if number % 2 else "dog", **columns) for number in range(count)]


def official(count=10):
    """Rows with official splits, some of each."""
    return [
        row(f"{split}{number}", "cat" if number % 2 else "dog", split) for split in SPLITS for number in range(count)
    ]


def run(tmp_path, monkeypatch, rows, quarantined=(), folder="here", **split):
    """Run the stage on rows in a new folder, and return that folder."""
    here = tmp_path / folder
    (here / "data").mkdir(parents=True)
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, here)
    monkeypatch.chdir(here)
    schema = {"features": {"image": "image"}, "target": {"label": "class"}}
    params.edit({"schema": schema, "split": {"val": 0.2, "test": 0.3} | split})
    types = TYPES.append(pa.field("_split_by", pa.string())) if "column" in split else TYPES
    parquet.write_table(pa.Table.from_pylist(rows, types), PATHS[0], row_group_size=7)
    with PATHS[1].open("w", encoding="utf-8", newline="") as file:
        lines = [(row["_id"], row["_source"], "a fault") for row in quarantined]
        csv.writer(file).writerows([("id", "source", "reasons"), *lines])
    prepare.main(*PATHS)
    return here


def placed(here):
    """Source -> split of each row that was kept."""
    sources = table.column(here / PATHS[0], "_source")
    return {sources[i]: split for split in SPLITS for i in open_split(here / PATHS[2], split).rows}
