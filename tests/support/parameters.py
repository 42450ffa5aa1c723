"""Edit a copy of params.yaml, and expect an error about it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.settings import params
from tests.support.failing import failing
from tests.support.project import ROOT

GIVEN = {
    "data": {"path": "data/builtin/digits", "format": "image_folder"},
    "schema": {"features": {"image": "image"}, "target": {"label": "class"}},
    "split": {"by": "hash", "column": "none", "val": 0.1, "test": 0.2},
    "train": {"epochs": 20, "batch_size": 64, "learning_rate": 0.003, "devices": 1},
    "gate": {"thresholds": {"accuracy": {"min": 0.95}}},
}


GONE = object()


def in_folder(tmp_path, monkeypatch):
    """Make a folder the working directory, with the project's dvc.yaml, and its params.yaml changed to GIVEN."""
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    params.edit(GIVEN)
    return tmp_path


def put(key, value):
    """Change a value of params.yaml by its dotted key, or delete it."""
    path = Path("params.yaml")
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    *above, last = key.split(".")
    place = tree
    for name in above:
        place = place[name]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(tree, file)


def mistaken(code, *values):
    """Fail unless params.yaml has an error with this code, on one line that names these values."""
    with failing(UserError, code, "params.yaml", *values) as caught:
        params.parse()
    assert "\n" not in str(caught.value)
