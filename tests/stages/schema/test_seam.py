"""The seam between what is common and what a kind of data brings: blocks, encoding, a toy kind through the line."""

from __future__ import annotations

import json
import random
import struct
import sys

import numpy as np
import pytest
from ruamel.yaml import YAML

import stages.schema.kinds
from serving.triton import manifest, wire
from serving.triton.launcher import find_server
from stages.core.errors import UserError
from stages.schema import Column, Schema, Tensor
from stages.tables import table
from stages.tables.arrays import open_split
from tests.support.architecture import RULES
from tests.support.project import clone

# What a person would add for two kinds and a format: nothing but these files.
TOY = {
    "stages/schema/kinds/level.py": '''
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
''',
    "stages/schema/views/level.py": '''
"""How a level is seen."""
from stages.schema.views import draw_text

def likely(values):
    return 0.0

def draw(value, axes):
    draw_text(f"{value:.2f}", axes)
''',
    "stages/schema/kinds/remark.py": '''
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
''',
    "stages/schema/views/remark.py": '''
"""How a remark is seen."""
from stages.schema.views import draw_text

def likely(values):
    return 0.0

def draw(value, axes):
    draw_text(value or "", axes)
''',
    "stages/validation/expectations/level.py": '''
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

def infer(column, rows):
    return {"most": 2 * float(rows[column].max())}
''',
    "stages/validation/expectations/remark.py": '''
"""What is expected of a remark."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    longest: int = 20

def expectations(column, options):
    return [("expect_column_values_to_be_between", {"column": f"{column}.letters", "max_value": options.longest})]

def infer(column, rows):
    return {}
''',
    "stages/networks/encoders/levels.py": '''
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
    "stages/networks/encoders/lookup.py": '''
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
    "stages/tables/sources/lines.py": '''
"""A JSON object on each line of rows.txt."""
import json
from stages.tables.sources import NoOptions, Reject, Sample

LAYOUT = "a file rows.txt"

def claims(path):
    return (path / "rows.txt").is_file()

Options = NoOptions

def columns(path, options):
    return []

def chunks(path, schema, options):
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
    """A clone with the toy's files after `dvc repro`: its folder, and what git saw before and after."""
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
    """What git sees beside the commit that the clone began with and a person's own data."""
    return set(made.run("git", "status", "--porcelain", "--untracked-files=all", ":!data/raw").splitlines())


def configure(path):
    """The toy's data in params.yaml, and everything quick."""
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
    assert shipped == {"stages/__init__.py", "stages/schema/__init__.py"} | kinds
    for path in shipped:
        assert (version / path).read_bytes() == (folder / path).read_bytes()


LEVEL = {"unit": 1.0, "mean": 0.0, "std": 1.0}
LABELS = {"labels": ["0", "1"], "counts": [1, 1]}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy's kinds, known to this process for a test; gives schemas of columns {name: kind}."""
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
    with pytest.raises(ValueError, match="the column 'level' has the name of a kind whose columns travel together"):
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
    schema = toy(**{"größe": "level", "note": "remark"})
    schema.dump(tmp_path / "one.json")
    again = Schema.load(tmp_path / "one.json")
    again.dump(tmp_path / "two.json")
    assert again == schema
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert "größe" in (tmp_path / "one.json").read_text(encoding="utf-8")


class Server:
    """Stands for a Triton client: keeps what is sent, and answers with no rows."""

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
