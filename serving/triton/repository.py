"""A Triton model repository: written for an exported model, and read again.

`NAME_<id>_encode` turns raw columns into blocks, `NAME_<id>_network` turns blocks into predictions; the ensembles
`NAME_<id>` and `NAME` run both. `NAME_<id>_canary` exists while a release is on trial (serving/releases/canary.py).
"""

from __future__ import annotations

import base64
import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.triton import config as configs
from serving.triton.config import LABELS_SUFFIX, Serving
from serving.triton.names import Names
from stages.schema import IDENTIFIERS, Schema, Tensor

TEXT_RELEASE = {"release": ("TYPE_STRING", (1,))}  # the identifiers of releases made by earlier versions
BATCHING = Path("serving/triton/backends/python/batchstrategy.so")  # Triton finds it by this name
ENCODE_CODE = (
    "stages/__init__.py",
    "stages/schema/__init__.py",
    "stages/schema/spelling.py",
    "stages/schema/kinds/__init__.py",
)


def write(
    folder: Path, names: Names, schema: Schema, onnx: bytes, golden: Mapping[str, Any], serving: Serving, code: Path
) -> None:
    """Write the four models to a new `folder`.

    `code` is the folder that holds `stages/` and `serving/`; the files that the models need are copied from there.
    """
    blocks, inputs, outputs = schema.blocks(), schema.inputs(), schema.outputs()
    _write_network(folder / names.network, configs.network_config(names, blocks, outputs, serving), onnx, outputs)
    _write_encode(folder / names.encode, configs.encode_config(names, inputs, blocks, serving), schema, golden, code)
    for name in (names.candidate, names.public):
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "README").write_text(
            "An ensemble has no file of its own: see ../config.pbtxt\n"
        )  # DVC drops empty folders
        configs.dump(configs.ensemble_config(name, names, schema, serving), folder / name / configs.FILE)


def add_network(folder: Path, names: Names, called: str, onnx: bytes, delay_ms: float = 0.0) -> str:
    """Add another network to a release, with an ensemble that shares the release's encode model.

    Args:
        called: the network's name, such as a control's.
        delay_ms: how long the network lets a request wait for others to be batched with.

    Returns:
        The name of the ensemble.
    """
    model = names.added(called)
    renamed = {names.network: f"{model}_network", names.candidate: model}
    for old, new in renamed.items():
        shutil.copytree(folder / old, folder / new, copy_function=shutil.copyfile)  # not the mode: it may be read-only
        config = configs.load(folder / new / configs.FILE)
        config.name = new
        for step in config.ensemble_scheduling.step:
            step.model_name = renamed.get(step.model_name, step.model_name)
        if delay_ms and old == names.network:
            config.dynamic_batching.max_queue_delay_microseconds = round(delay_ms * 1000)
            config.max_batch_size = max(2, config.max_batch_size)  # a full batch would not wait
        configs.dump(config, folder / new / configs.FILE)
    (folder / renamed[names.network] / "1" / "model.onnx").write_bytes(onnx)
    return model


def schema_of(folder: Path, names: Names) -> Schema:
    """Read a release's fitted schema. Its kinds need not exist in this version of the code."""
    return Schema.load(folder / names.encode / "1" / "schema.json")


def golden(folder: Path, names: Names) -> tuple[Schema, dict[str, list[Any]]]:
    """Read a release's schema and its golden rows {column: [n]}, which every copy of it must answer alike."""
    schema = schema_of(folder, names)
    inputs = schema.inputs()
    rows = json.loads((folder / names.encode / "1" / "golden.json").read_text(encoding="utf-8"))["rows"]
    return schema, {
        name: [base64.b64decode(value) for value in values] if inputs[name].dtype == "bytes" else values
        for name, values in rows.items()
    }


def contract(folder: Path, names: Names) -> dict[str, Any]:
    """Return what callers of a release rely on: inputs, outputs, the outputs' classes in order, and identifiers."""
    from tritonclient.grpc import model_config_pb2

    config = configs.load(folder / names.candidate / configs.FILE)
    type_name = model_config_pb2.DataType.Name
    labels = {
        path.name[: -len(LABELS_SUFFIX)]: path for path in (folder / names.network / "1").glob(f"*{LABELS_SUFFIX}")
    }
    inputs = {
        tensor.name: (type_name(tensor.data_type), tuple(tensor.dims), tensor.optional) for tensor in config.input
    }
    outputs = {tensor.name: (type_name(tensor.data_type), tuple(tensor.dims)) for tensor in config.output}
    return {
        "inputs": inputs,
        "outputs": {name: tensor for name, tensor in outputs.items() if name not in IDENTIFIERS},
        "identifiers": {name: tensor for name, tensor in outputs.items() if name in IDENTIFIERS},
        "labels": {name: path.read_text(encoding="utf-8").splitlines() for name, path in labels.items()},
    }


def largest_batch(folder: Path, names: Names) -> int:
    """Return the largest number of rows that a request may have."""
    return int(configs.load(folder / names.candidate / configs.FILE).max_batch_size)


def contract_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare two contracts: the changes that break callers, and those that are only worth a notice."""
    breaking: list[str] = []
    harmless: list[str] = []
    for name, (dtype, dims, optional) in new["inputs"].items():
        if name not in old["inputs"]:
            (harmless if optional else breaking).append(f"input {name!r} is new")
        elif (dtype, dims) != old["inputs"][name][:2]:
            breaking.append(f"input {name!r} has another type or shape")
        elif not optional and old["inputs"][name][2]:
            breaking.append(f"input {name!r} may no longer be left out")
    for side in ("inputs", "outputs"):
        breaking += [f"{side[:-1]} {name!r} is gone" for name in old[side] if name not in new[side]]
    for name, tensor in new["outputs"].items():
        old_labels = old["labels"].get(name, [])
        new_labels = new["labels"].get(name, [])
        if old_labels and new_labels[: len(old_labels)] != old_labels:
            gone = [label for label in old_labels if label not in new_labels]
            change = f"the classes {', '.join(gone)} are gone" if gone else "the classes have another order"
            breaking.append(f"{name}: {change}")
        elif old_labels != new_labels:
            harmless.append(f"{name}: new classes {', '.join(new_labels[len(old_labels) :])}")
        elif name in old["outputs"] and tensor != old["outputs"][name]:
            breaking.append(f"output {name!r} has another type or shape")
    if new["identifiers"] != old["identifiers"]:
        if old["identifiers"] == TEXT_RELEASE:
            harmless.append("output 'release' is now 12 ASCII codes instead of text, and output 'answer_id' is new")
        else:
            breaking.append("output 'release' is text again, and output 'answer_id' is gone")
    return breaking, harmless


def _write_network(folder: Path, config: Any, onnx: bytes, outputs: Mapping[str, Tensor]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(onnx)
    for name, tensor in outputs.items():
        if tensor.labels:
            (folder / "1" / f"{name}{LABELS_SUFFIX}").write_text("\n".join(tensor.labels) + "\n", encoding="utf-8")
    configs.dump(config, folder / configs.FILE)


def _write_encode(folder: Path, config: Any, schema: Schema, golden: Mapping[str, Any], code: Path) -> None:
    version, warmup = folder / "1", folder / "warmup"
    warmup.mkdir(parents=True)
    kinds = sorted({f"stages/schema/kinds/{column.kind}.py" for column in schema.features})
    for path in (*ENCODE_CODE, *kinds):
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(code / path, version / path)
    shutil.copyfile(code / "serving/triton/backends/encode.py", version / "model.py")
    shutil.copyfile(code / BATCHING, version / BATCHING.name)
    schema.dump(version / "schema.json")
    (version / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (version / "__pycache__").touch()  # a file: a folder that Python adds here would make Triton reload the model
    for name, tensor in schema.inputs().items():
        first = golden["rows"][name][0]
        if tensor.dtype == "float64":
            content = struct.pack("<d", first)
        else:
            value = base64.b64decode(first) if tensor.dtype == "bytes" else first.encode()
            content = struct.pack("<I", len(value)) + value
        (warmup / name).write_bytes(content)
    configs.dump(config, folder / configs.FILE)
