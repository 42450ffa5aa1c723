"""Two lines of params switch the graph to other data; skipped if the data are not here."""

from __future__ import annotations

import shutil

import pytest

from tests.support.real_data import DATA, shorten, some_of_many


@pytest.mark.parametrize(("name", "form"), [("trashnet", "image_folder"), ("fashion-mnist", "idx")])
def test_two_lines_of_params_suffice_for_other_data(fresh, name, form):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there; MILLRACE_DATA names the folder that holds it")
    shutil.copytree(DATA / name, fresh.folder / "data" / "raw" / name, ignore=some_of_many)
    for path in (fresh.folder / "data" / "raw" / name).glob("*-ubyte.gz"):
        shorten(path)
    fresh.params(data={"path": f"data/raw/{name}", "format": form})
    fresh.params(train={"debug": "fast"})  # a few batches teach nothing, so the gate must refuse the model
    output = fresh.millrace("run", code=3)
    assert "accuracy" in output
    assert "refused: accuracy is " in output
    assert "served: batches of 64" not in "".join(line for line in output.splitlines() if "refused" in line)
