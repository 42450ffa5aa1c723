"""Two lines of params turn the line to other data; skipped where the data are not there."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from pathlib import Path

import pytest
from conftest import ROOT

DATA = Path(os.environ.get("MILLRACE_DATA", ROOT.parent / "shared" / "data"))


def some_of_many(folder: str, names: list[str]) -> list[str]:
    """To leave out: nine of ten files where there are hundreds."""
    return [name for place, name in enumerate(sorted(names)) if len(names) > 100 and place % 10]


def shorten(path: Path) -> None:
    """Leave the first tenth of an IDX file."""
    content = gzip.decompress(path.read_bytes())
    count, head = struct.unpack(">i", content[4:8])[0], 4 + 4 * content[3]
    each = (len(content) - head) // count
    left = content[:4] + struct.pack(">i", count // 10) + content[8 : head + count // 10 * each]
    path.write_bytes(gzip.compress(left, 1))


@pytest.mark.parametrize(("name", "form"), [("trashnet", "image_folder"), ("fashion-mnist", "idx")])
def test_two_lines_suffice(fresh, name, form):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there; MILLRACE_DATA names the folder that holds it")
    shutil.copytree(DATA / name, fresh.folder / "data" / "raw" / name, ignore=some_of_many)
    for path in (fresh.folder / "data" / "raw" / name).glob("*-ubyte.gz"):
        shorten(path)
    fresh.params(data={"path": f"data/raw/{name}", "format": form})
    fresh.params(train={"debug": "fast"})  # learns nothing in a few batches, so the gate must refuse it
    said = fresh.millrace("run", code=3)
    assert "accuracy" in said
    assert "refused: accuracy is " in said
    assert "served: batches of 64" not in "".join(line for line in said.splitlines() if "refused" in line)
