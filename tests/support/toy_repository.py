"""A repository of small models with kinds of their own, and a real Triton that serves it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import stages.schema.kinds
from serving.triton.launcher import PROJECT, Endpoint, running
from serving.triton.repository import BATCHING
from stages.schema import Column, Schema

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")
np_to_triton_dtype = pytest.importorskip("tritonclient.utils").np_to_triton_dtype

ID = "0123456789ab"


ENCODE = f"toy_{ID}_encode"


CONFIG_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}


# Toy kinds, as SEAM describes them: a number that travels packed, and a text. Both may be missing.
KINDS = {
    "amount": """
import numpy as np
from stages.schema import Tensor
RAW, PACKED, OPTIONAL, ENCODER = "float64", True, True, "linear"
def raw(value):
    return float("nan") if value is None else float(value)
def transform(values, fitted):
    array = np.array(values, np.float64)
    if np.isinf(array).any():
        raise ValueError("infinite")
    return array.astype(np.float32)[:, None]
def tensor(fitted):
    return Tensor("float32", (1,))
""",
    "word": """
import numpy as np
from stages.schema import Tensor
RAW, PACKED, OPTIONAL, ENCODER = "str", False, True, "embedding"
def raw(value):
    return value or None
def transform(values, fitted):
    if "crash" in values:
        raise RuntimeError("a bug")
    return np.array([-1 if value is None else len(value) for value in values], np.int32)[:, None]
def tensor(fitted):
    return Tensor("int32", (1,))
""",
}


FITTED = {"height": 8, "width": 6, "channels": 1, "mean": [1.0], "std": [1.0]}


SCHEMA = Schema(
    (
        Column("photo", "image", {}, FITTED),
        Column("größe in m²", "amount"),
        Column("weight", "amount"),
        Column("note", "word"),
    ),
    Column("label", "target_class", {}, {"labels": ["a", "b"], "counts": [1, 1]}),
)


@pytest.fixture(scope="module")
def toy_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, text in KINDS.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    stages.schema.kinds.__path__.append(str(folder))
    yield folder
    stages.schema.kinds.__path__.remove(str(folder))
    for name in KINDS:
        sys.modules.pop(f"stages.schema.kinds.{name}", None)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, toy_kinds: Path) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    _write_network(folder, "plain")
    _write_network(folder, "batching", more="dynamic_batching { max_queue_delay_microseconds: 30000 }")
    _write_network(folder, "twice", instances=2)
    _write_network(folder, "threads", threads=3)
    _write_network(folder, "unbatched", max_batch=0)
    _write_network(folder, "any_width", dims=-1)
    _write_texts(folder)
    _write_encode(folder, ENCODE, toy_kinds)
    return folder


@pytest.fixture(scope="module")
def endpoint(a_server: None, repository: Path) -> Iterator[Endpoint]:
    with running(repository, sorted(path.name for path in repository.iterdir()), drain_s=0) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(endpoint.grpc) as client:
        yield client


def _write_network(
    repository: Path,
    name: str,
    *,
    more: str = "",
    instances: int = 1,
    threads: int = 1,
    max_batch: int = 64,
    dims: int = 4,
) -> None:
    """x float32 [N, 4] -> y float32 [N, 3] and total float32 [N, 1]."""
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceSum", ["y", "axis"], ["total"], keepdims=1),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4 if dims > 0 else "W"])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N", 1]),
        ],
        [
            numpy_helper.from_array(weights, "w"),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    version = repository / name / "1"
    version.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, version / "model.onnx")
    batch = "" if max_batch else "-1, "
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}" backend: "onnxruntime" max_batch_size: {max_batch} {more}\n'
        f"instance_group {{ count: {instances} kind: KIND_CPU }}\n"  # without it Triton makes two of this backend
        f'input {{ name: "x" data_type: TYPE_FP32 dims: [ {batch}{dims} ] }}\n'
        f'output {{ name: "y" data_type: TYPE_FP32 dims: [ {batch}3 ] }}\n'
        f'output {{ name: "total" data_type: TYPE_FP32 dims: [ {batch}1 ] }}\n'
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n'
        'parameters { key: "inter_op_thread_count" value { string_value: "1" } }\n'
    )


def _write_texts(repository: Path) -> None:
    """s texts [N, 2] -> t, the same, and same bool [N, 1], whether both of a row are equal."""
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["s"], ["t"]),
            helper.make_node("Split", ["s"], ["a", "b"], axis=1, num_outputs=2),
            helper.make_node("Equal", ["a", "b"], ["same"]),
        ],
        "texts",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["N", 2])],
        [
            helper.make_tensor_value_info("t", TensorProto.STRING, ["N", 2]),
            helper.make_tensor_value_info("same", TensorProto.BOOL, ["N", 1]),
        ],
    )
    version = repository / "texts" / "1"
    version.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.save(model, version / "model.onnx")
    (repository / "texts" / "config.pbtxt").write_text(
        'name: "texts" backend: "onnxruntime" max_batch_size: 64\n'
        'input { name: "s" data_type: TYPE_STRING dims: [ 2 ] }\n'
        'output { name: "t" data_type: TYPE_STRING dims: [ 2 ] }\n'
        'output { name: "same" data_type: TYPE_BOOL dims: [ 1 ] }\n'
        "instance_group { count: 1 kind: KIND_CPU }\n"
        "dynamic_batching { max_queue_delay_microseconds: 30000 }\n"
    )


def _write_encode(repository: Path, name: str, toy_kinds: Path) -> None:
    version = repository / name / "1"
    (version / "stages/schema/kinds").mkdir(parents=True)
    shutil.copyfile(PROJECT / "serving/triton/backends/encode.py", version / "model.py")
    shutil.copyfile(PROJECT / BATCHING, version / BATCHING.name)
    for path in (
        "stages/__init__.py",
        "stages/schema/__init__.py",
        "stages/schema/kinds/__init__.py",
        "stages/schema/kinds/image.py",
    ):
        shutil.copyfile(PROJECT / path, version / path)
    for kind in KINDS:
        shutil.copyfile(toy_kinds / f"{kind}.py", version / "stages/schema/kinds" / f"{kind}.py")
    (version / "__pycache__").touch()
    SCHEMA.dump(version / "schema.json")
    rows = _rows(4)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in SCHEMA.encode(rows).values())).hexdigest()
    encoded = {**rows, "photo": [base64.b64encode(value).decode() for value in rows["photo"]]}
    golden = json.dumps({"rows": encoded, "sha256": digest}, ensure_ascii=False)
    (version / "golden.json").write_text(golden, encoding="utf-8")
    inputs = [
        f'input {{ name: "{column}" data_type: {"TYPE_FP64" if tensor.dtype == "float64" else "TYPE_STRING"}'
        f" dims: [ 1 ] optional: {str(tensor.optional).lower()} }}"
        for column, tensor in SCHEMA.inputs().items()
    ]
    outputs = [
        f'output {{ name: "{block.name}" data_type: {CONFIG_TYPES[block.tensor.dtype]}'
        f" dims: {list(block.tensor.shape)} }}"
        for block in SCHEMA.blocks()
    ]
    text = [
        f'name: "{name}" backend: "python" max_batch_size: 64',
        *inputs,
        *outputs,
        'output { name: "release" data_type: TYPE_UINT8 dims: [ 12 ] }',
        'output { name: "answer_id" data_type: TYPE_UINT8 dims: [ 16 ] }',
        "dynamic_batching { max_queue_delay_microseconds: 30000 }",
    ]
    (repository / name / "config.pbtxt").write_text("\n".join(text), encoding="utf-8")


def _rows(count: int) -> dict[str, list[Any]]:
    return {
        "photo": [_png(seed) for seed in range(count)],
        "größe in m²": [float("nan") if row == 1 else row / 3 for row in range(count)],
        "weight": [-1e-3 * row for row in range(count)],
        "note": ["", "schön", "a", "日本"][:count],
    }


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 6), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _x(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def _in_process(repository: Path, model: str, x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx")
    return dict(zip(["y", "total"], session.run(["y", "total"], {"x": x}), strict=True))


def _infer_network(client: Any, model: str, x: np.ndarray, outputs: list[str] | None = None) -> Any:
    wanted = [grpc.InferRequestedOutput(name) for name in outputs] if outputs else None
    return client.infer(model, [_tensor(grpc, "x", x)], outputs=wanted)


def _infer_encode(client: Any, raw: dict[str, list[Any]], module: Any = grpc) -> Any:
    return client.infer(ENCODE, [_column(module, *each) for each in raw.items()])


def _column(module: Any, name: str, values: list[Any]) -> Any:
    number = SCHEMA.inputs()[name].dtype == "float64"
    cells = [value.encode() if isinstance(value, str) else value for value in values]
    return _tensor(module, name, np.array(cells, np.float64 if number else np.object_)[:, None])


def _tensor(module: Any, name: str, array: np.ndarray) -> Any:
    tensor = module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def _largest_batch(client: Any, model: str) -> int:
    return max(int(batch.batch_size) for batch in client.get_inference_statistics(model).model_stats[0].batch_stats)


def _stubs(endpoint: Endpoint, model: str) -> list[psutil.Process]:
    processes = psutil.Process(endpoint.process.pid).children(recursive=True)
    return [process for process in processes if f"/{model}/1/" in " ".join(process.cmdline()[:2])]
