"""A toy kind through the whole graph: it needs only new files."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
from ruamel.yaml import YAML

from serving.triton import manifest
from serving.triton.launcher import find_server
from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables import table
from stages.tables.arrays import open_split
from tests.support.architecture import RULES
from tests.support.project import clone
from tests.support.toy_kinds import TOY

pytestmark = pytest.mark.slow

COLUMNS = {"left level": {"kind": "level", "unit": 2.0}, "remark": "remark", "right level": "level"}


def rows(count=300):
    """Rows of grade 1 where the sum of the levels is high, with a gap between the grades and some missing remarks."""
    draw = random.Random(0)
    while count:
        left, right = draw.random(), draw.random()
        if abs(left + right - 1) < 0.1:
            continue
        remark = draw.choice(["clear", "naïve ☂", None])
        yield {"left level": 2 * left, "right level": right, "remark": remark, "grade": str(int(left + right > 1))}
        count -= 1


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A clone with the toy files after `dvc repro`: its folder, and the output of `git status` before and after."""
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))
    made = clone(tmp_path_factory.mktemp("seam") / "clone")
    folder = made.folder
    for path, text in TOY.items():
        (folder / path).write_text(text.lstrip(), encoding="utf-8")
    (folder / "data/raw/toy").mkdir(parents=True)
    lines = [json.dumps(row) for row in rows()]
    lines[20] = lines[20].replace('"left level": ', '"left level": 1000')  # quarantined
    lines[30] = lines[30][:-5]  # rejected
    (folder / "data/raw/toy/rows.txt").write_text("\n".join(lines), encoding="utf-8")
    configure(folder / "params.yaml")
    before = changes(made)
    made.run(sys.executable, "-m", "dvc", "repro", "gate")
    return folder, before, changes(made)


def changes(made):
    """The lines of `git status`, without raw data."""
    return set(made.run("git", "status", "--porcelain", "--untracked-files=all", ":!data/raw").splitlines())


def configure(path):
    """Set the toy data in params.yaml, and short training."""
    yaml = YAML()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    tree["data"] |= {"path": "data/raw/toy", "format": "lines"}
    tree["schema"] = {"features": COLUMNS, "target": {"grade": "class"}, "keep": []}
    tree["validate"]["columns"] = {"left level": {"most": 10.0}, "remark": {"longest": 10}}
    tree["model"]["encoders"] = {"level": {"name": "levels", "width": 6}}
    tree["train"] |= {"epochs": 8, "batch_size": 16, "learning_rate": 0.03, "augment": {}}
    tree["measure"] |= {"requests": 20, "clients": 2}
    tree["gate"] |= {
        "thresholds": {"accuracy": {"min": 0.9}, "recall[1]": {"min": 0.8}},
        "p99_ms": 1000.0,
        "slices": {},
    }
    yaml.dump(tree, path)


def test_a_new_kind_needs_only_new_files_and_params(line):
    _, before, after = line
    assert before == {" M params.yaml", *(f"?? {path}" for path in TOY)}
    assert after - before <= {" M dvc.lock"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_new_kind_keeps_the_rules_of_the_architecture(line, rule):
    assert rule(line[0]) == []


def test_a_new_kind_passes_the_gate(line):
    folder, *_ = line
    verdict = json.loads((folder / "reports/verdict.json").read_text(encoding="utf-8"))
    assert verdict["verdict"] == "pass"
    assert {"accuracy", "recall[1]", "served: 8 clients at once"} <= {
        criterion["name"] for criterion in verdict["criteria"]
    }


def test_a_new_kind_is_validated(line):
    folder, *_ = line
    quarantine = (folder / "data/quarantine.csv").read_text(encoding="utf-8")
    assert "line 21,left level 1e+04 is over 10" in quarantine
    assert quarantine.count("\n") == 2
    assert (folder / "data/rejects.csv").read_text(encoding="utf-8") == "source,reason\nline 31,is no JSON\n"


def test_columns_of_a_packed_kind_are_one_array(line):
    folder, *_ = line
    schema = Schema.load(folder / "data/schema.json")
    assert [column.name for column in schema.features] == list(COLUMNS)
    test = open_split(folder / "data/arrays", "test")
    assert [(block.dtype, block.shape[1:]) for block in test.blocks] == [(np.float32, (2,)), (np.int32, (1,))]
    right = table.column(folder / "data/table.parquet", "right level")[test.rows]
    assert test.blocks[0][:, 1].tolist() == right.astype(np.float32).tolist()


def test_missing_values_of_an_optional_column_were_served(line):
    folder, *_ = line
    test = open_split(folder / "data/arrays", "test")
    assert (test.blocks[1] == 0).any()
    assert (test.blocks[1] > 1).any()


def test_the_exported_model_contains_only_the_code_of_its_kinds(line):
    folder, *_ = line
    made = manifest.load(folder / "models/manifest.json")
    version = folder / f"models/repository/{made.name}_{made.id}_encode/1"
    shipped = {path.relative_to(version).as_posix() for path in (version / "stages").rglob("*.py")}
    kinds = {"stages/schema/kinds/__init__.py", "stages/schema/kinds/level.py", "stages/schema/kinds/remark.py"}
    assert shipped == {"stages/__init__.py", "stages/schema/__init__.py", "stages/schema/spelling.py"} | kinds
    for path in shipped:
        assert (version / path).read_bytes() == (folder / path).read_bytes()
