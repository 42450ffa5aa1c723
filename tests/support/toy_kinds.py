"""The files that a person adds for two toy kinds and a toy format."""

from __future__ import annotations

# All files that two new kinds and a new format need.
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
