"""The seam between what is common and what a kind of data brings: blocks, encoding, and a toy kind through all of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

import stages.kinds
from serving.launcher import find_server
from stages import manifest, table
from stages.arrays import open_split
from stages.errors import UserError
from stages.schema import Column, Schema

ROOT = Path(__file__).parent.parent

# What a person would add for two kinds and a format: nothing but these files.
TOY = {
    "stages/kinds/level.py": '''
"""A number between known ends."""
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "float64", True, False, "levels"

@dataclass(frozen=True)
class Options:
    unit: float = 1.0

def raw(value):
    return float(value)

def facts(values):
    return {}

def fit(chunks, options):
    whole = np.concatenate([np.asarray(chunk, np.float64) for chunk in chunks]) / options.unit
    return {"unit": options.unit, "mean": round(float(whole.mean()), 6), "std": round(float(whole.std()), 6)}

def transform(values, fitted):
    array = (np.asarray(values, np.float64) / fitted["unit"]).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("no finite number")
    return array[:, None]

def tensor(fitted):
    return Tensor("float32", (1,))

def draw(value, axes):
    axes.text(0.5, 0.5, f"{value:.2f}")
''',
    "stages/kinds/remark.py": '''
"""A word, or none."""
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "str", False, True, "lookup"

@dataclass(frozen=True)
class Options:
    pass

def raw(value):
    return value or None

def facts(values):
    return {"letters": np.array([len(value or "") for value in values], np.int64)}

def fit(chunks, options):
    return {"words": sorted({value for chunk in chunks for value in chunk if value})}

def transform(values, fitted):
    codes = {word: code for code, word in enumerate(fitted["words"], 2)}
    return np.array([0 if value is None else codes.get(value, 1) for value in values], np.int32)[:, None]

def tensor(fitted):
    return Tensor("int32", (1,))

def draw(value, axes):
    axes.text(0.5, 0.5, value or "")
''',
    "stages/expectations/level.py": '''
"""What is expected of a level."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    most: float = 1e6

def expectations(column, options):
    return [
        ("expect_column_values_to_not_be_null", {"column": column}),
        ("expect_column_values_to_be_between", {"column": column, "max_value": options.most}),
    ]
''',
    "stages/expectations/remark.py": '''
"""What is expected of a remark."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    longest: int = 20

def expectations(column, options):
    return [("expect_column_values_to_be_between", {"column": f"{column}.letters", "max_value": options.longest})]
''',
    "stages/networks/levels.py": '''
"""Every level a token."""
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self, block, *, width: int = 8):
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor([column.fitted[name] for column in block.columns])
            self.register_buffer(name, values, persistent=False)
        self.linear = nn.Linear(len(block.columns), width)
        self.shape = (1, width)

    def forward(self, x):
        return torch.relu(self.linear((x - self.mean) / self.std))[:, None]
''',
    "stages/networks/lookup.py": '''
"""A word as a learned vector."""
from torch import nn

class Encoder(nn.Module):
    def __init__(self, block, *, width: int = 4):
        super().__init__()
        self.table = nn.Embedding(len(block.columns[0].fitted["words"]) + 2, width)
        self.shape = (1, width)

    def forward(self, x):
        return self.table(x.long())
''',
    "stages/sources/lines.py": '''
"""A JSON object on each line of rows.txt."""
import json
from stages.sources import Reject, Sample

def claims(path):
    return (path / "rows.txt").is_file()

def chunks(path, schema):
    names = [column.name for column in (*schema.features, schema.target)]
    lines = (path / "rows.txt").read_text(encoding="utf-8").splitlines()
    for first in range(0, len(lines), 100):
        yield first, names, lines[first : first + 100]

def read(chunk):
    first, names, lines = chunk
    for number, line in enumerate(lines, first + 1):
        try:
            row = json.loads(line)
        except ValueError:
            yield Reject(f"line {number}", "is no JSON")
        else:
            yield Sample(f"line {number}", row.get("split"), {name: row.get(name) for name in names})
''',
}
COLUMNS = {"left level": {"kind": "level", "unit": 2.0}, "remark": "remark", "right level": "level"}


def rows(count=300):
    """High where the levels are high together, with a gap between the classes; every third remark is missing."""
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
    """A clone with the toy's files, after `dvc repro`: its folder, what git sees before and after, and what DVC said."""
    try:
        server = find_server()
    except UserError as error:
        pytest.skip(str(error))
    clone = tmp_path_factory.mktemp("seam") / "clone"
    copy(clone)
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message=as it is")
    for path, text in TOY.items():
        (clone / path).write_text(text.lstrip(), encoding="utf-8")
    (clone / "data/raw/toy").mkdir(parents=True)
    told = [json.dumps(row) for row in rows()]
    told[20] = told[20].replace('"left level": ', '"left level": 1000')  # quarantined
    told[30] = told[30][:-5]  # rejected
    (clone / "data/raw/toy/rows.txt").write_text("\n".join(told), encoding="utf-8")
    configure(clone / "params.yaml")
    before = git(clone, "status", "--porcelain", "--untracked-files=all").splitlines()
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MILLRACE_TRITON": str(server.environment or server.binary),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(clone.parent / "dvc"),
    }
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "dvc", "repro", "gate"]
    ran = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    after = git(clone, "status", "--porcelain", "--untracked-files=all").splitlines()
    return clone, before, after, ran.stdout


def copy(clone):
    """What git tracks or would track of the project, as it lies here now."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)


def configure(path):
    """The toy's data in params.yaml, and everything quick."""
    yaml = YAML()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    tree["data"] |= {"path": "data/raw/toy", "format": "lines"}
    tree["schema"] = {"features": COLUMNS, "target": {"grade": "class"}}
    tree["validate"]["columns"] = {"left level": {"most": 10.0}, "remark": {"longest": 10}}
    tree["model"]["encoders"] = {"level": {"name": "levels", "width": 6}}
    tree["train"] |= {"epochs": 8, "batch_size": 16, "learning_rate": 0.03, "augment": {}}
    tree["measure"] |= {"requests": 20, "clients": 2}
    tree["gate"] |= {"thresholds": {"accuracy": {"min": 0.9}, "recall[1]": {"min": 0.8}}, "p99_ms": 5000.0}
    yaml.dump(tree, path)


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_new_kind_is_added_files_and_params_alone(line):
    _, before, after, _ = line
    assert sorted(before) == sorted([" M params.yaml", *(f"?? {path}" for path in TOY)])
    assert set(after) - set(before) <= {" M dvc.lock"}


def test_a_new_kind_passes_the_gate(line):
    clone, *_ = line
    verdict = json.loads((clone / "reports/verdict.json").read_text(encoding="utf-8"))
    assert verdict["verdict"] == "pass"
    assert {"accuracy", "recall[1]", "served: 8 clients at once"} <= {said["name"] for said in verdict["criteria"]}


def test_a_new_kind_is_validated(line):
    clone, *_ = line
    quarantine = (clone / "data/quarantine.csv").read_text(encoding="utf-8")
    assert "line 21,left level 1,000" in quarantine
    assert quarantine.count("\n") == 2
    assert (clone / "data/rejects.csv").read_text(encoding="utf-8") == "source,reason\nline 31,is no JSON\n"
    assert (clone / "data/table.parquet").exists()


def test_columns_of_a_packed_kind_are_one_array(line):
    clone, *_ = line
    schema = Schema.load(clone / "data/schema.json")
    assert [column.name for column in schema.features] == list(COLUMNS)
    test = open_split(clone / "data/arrays", "test")
    assert [(block.dtype, block.shape[1:]) for block in test.blocks] == [(np.float32, (2,)), (np.int32, (1,))]
    right = table.column(clone / "data/table.parquet", "right level")[test.rows]
    assert test.blocks[0][:, 1].tolist() == right.astype(np.float32).tolist()


def test_missing_values_of_an_optional_column_were_served(line):
    clone, *_ = line
    test = open_split(clone / "data/arrays", "test")
    assert (test.blocks[1] == 0).any()
    assert (test.blocks[1] > 1).any()


def test_the_exported_model_carries_the_code_of_its_kinds_alone(line):
    clone, *_ = line
    made = manifest.load(clone / "models/manifest.json")
    version = clone / f"models/repository/{made.name}_{made.id}_encode/1"
    shipped = {path.relative_to(version).as_posix() for path in (version / "stages").rglob("*.py")}
    kinds = {"stages/kinds/__init__.py", "stages/kinds/level.py", "stages/kinds/remark.py"}
    assert shipped == {"stages/__init__.py", "stages/schema.py"} | kinds
    for path in shipped:
        assert (version / path).read_bytes() == (clone / path).read_bytes()
