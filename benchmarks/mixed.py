"""A small model with every kind of column, released into a new project without a run, and its expected predictions."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import workspace
from serving.releases import ledger
from serving.releases.store import Store
from serving.triton import manifest
from serving.triton.config import Serving
from serving.triton.names import Names, rename
from serving.triton.repository import write
from stages.schema import MISSING, Column, Schema, kind, target_kind

NAME, ROWS, LABELS = "mixed", 64, ("a", "b", "c")
WORDS = ("red", "green", "blue", "schön", "日本", "never", "always", "maybe")


class Mixed(NamedTuple):
    """The project, its release, rows {column: [ROWS]}, and their probabilities [ROWS, classes]."""

    folder: Path
    store: Store
    names: Names
    schema: Schema
    rows: dict[str, list[Any]]
    answers: np.ndarray


def release(folder: Path, seed: int = 0) -> Mixed:
    """Fit the kinds to random rows, make a random network, and release both."""
    import onnxruntime

    rows = draw(np.random.default_rng(seed))
    schema = fit(rows)
    onnx = network(schema, seed)
    blocks = schema.encode(rows)
    golden = {name: values[:8] for name, values in rows.items()}
    digest = hashlib.sha256(b"".join(array.tobytes() for array in schema.encode(golden).values())).hexdigest()
    stored = golden | {"photo": [base64.b64encode(value).decode() for value in golden["photo"]]}
    stored = {name: [MISSING["str"] if value is None else value for value in values] for name, values in stored.items()}
    project = workspace.init(workspace.project(folder))
    repository, blank = project / "made", Names(NAME, manifest.BLANK)
    write(repository, blank, schema, onnx, {"rows": stored, "sha256": digest}, Serving(64, 1, 1), workspace.ROOT)
    described = manifest.describe(repository, NAME, {})
    names = Names(NAME, described.id)
    rename(repository, blank, names)
    answers = onnxruntime.InferenceSession(onnx).run(None, blocks)[0]
    store = Store(project / "live")
    files = {"verdict.json": {"release": names.release}, "golden.json": {"probabilities": answers[:8].tolist()}}
    with store.writing("a benchmark"):
        store.add(repository, described, {name: json.dumps(content) for name, content in files.items()})
        store.switch(names)
        store.mark_released(names)
        ledger.append(store.ledger, ledger.RELEASED, name=NAME, release=names.release)
    return Mixed(project, store, names, schema, rows, answers)


def draw(random: np.random.Generator) -> dict[str, list[Any]]:
    """Rows as the table stores them."""
    return {
        "photo": [picture(random.integers(0, 255, (12, 10, 3), np.uint8)) for _ in range(ROWS)],
        "amount": random.normal(100, 20, ROWS).round(3).tolist(),
        "job": random.choice(WORDS, ROWS).tolist(),
        "day": [f"2024-{month:02}-{day:02}" for month, day in random.integers(1, 13, (ROWS, 2))],
        "note": [" ".join(random.choice(WORDS, 6)) for _ in range(ROWS)],
    }


def picture(pixels_HxWxC: np.ndarray) -> bytes:
    """Encode the pixels as PNG."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels_HxWxC).save(encoded, "PNG")
    return encoded.getvalue()


def fit(rows: dict[str, list[Any]]) -> Schema:
    """As `prepare` does."""
    kinds = {"photo": "image", "amount": "number", "job": "category", "day": "timestamp", "note": "text"}
    columns = []
    for name, kind_name in kinds.items():
        module: Any = kind(kind_name)
        columns.append(Column(name, kind_name, {}, module.fit([rows[name]], module.Options())))
    target = Column("label", "target_class")
    module = target_kind(target.kind)
    return Schema(tuple(columns), replace(target, fitted=module.fit([LABELS * 4], module.Options())))


def network(schema: Schema, seed: int) -> bytes:
    """softmax(sum of x W) over all blocks with random W; missing values count as zero."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    nodes, inputs, terms = [], [], []
    weights = [numpy_helper.from_array(np.float32(0), "zero")]
    for i, block in enumerate(schema.blocks()):
        width = int(np.prod(block.tensor.shape))
        spread = random.normal(0, 0.3 / np.sqrt(width), (width, len(LABELS))).astype(np.float32)
        scale = {"uint8": 0.02, "int32": 0.3, "float32": 0.01}[block.tensor.dtype]
        weights.append(numpy_helper.from_array(spread * np.float32(scale), f"w{i}"))
        kinds = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}
        shape = ["N", *block.tensor.shape]
        inputs.append(helper.make_tensor_value_info(block.name, kinds[block.tensor.dtype], shape))
        nodes += [
            helper.make_node("Cast", [block.name], [f"f{i}"], to=TensorProto.FLOAT),
            helper.make_node("IsNaN", [f"f{i}"], [f"m{i}"]),
            helper.make_node("Where", [f"m{i}", "zero", f"f{i}"], [f"k{i}"]),
            helper.make_node("Flatten", [f"k{i}"], [f"x{i}"], axis=1),
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"y{i}"]),
        ]
        terms.append(f"y{i}")
    nodes += [helper.make_node("Sum", terms, ["sum"]), helper.make_node("Softmax", ["sum"], ["probabilities"], axis=1)]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(LABELS)])
    graph = helper.make_graph(nodes, "mixed", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))
