"""The layout of a Triton model repository, and the configuration of its models.

`NAME_<id>_encode` turns raw columns into blocks, `NAME_<id>_network` blocks into answers; `NAME_<id>` and `NAME` are
the ensemble of both. `NAME_<id>_canary` is there while a release is on trial (serving/releases/canary.py).
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.schema import IDENTIFIERS, Block, Schema, Tensor

TRITON_TYPES = {
    "bytes": "TYPE_STRING",
    "str": "TYPE_STRING",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
TEXT_RELEASE = {"release": ("TYPE_STRING", (1,))}  # the identifiers of releases made by earlier versions
_LABELS = ".labels.txt"
BATCHING = Path("serving/triton/backends/python/batchstrategy.so")  # by this name Triton finds it
ENCODE_CODE = ("stages/__init__.py", "stages/schema/__init__.py", "stages/schema/kinds/__init__.py")


@dataclass(frozen=True)
class Names:
    """What the models of one release are called."""

    public: str
    release: str

    @property
    def candidate(self) -> str:
        """The ensemble of this release for ever."""
        return f"{self.public}_{self.release}"

    @property
    def encode(self) -> str:
        return f"{self.candidate}_encode"

    @property
    def network(self) -> str:
        return f"{self.candidate}_network"

    def beside(self, called: str) -> str:
        """The ensemble of another network that is served beside this release's, such as a control's."""
        return f"{self.candidate}_{called.replace(' ', '_')}"

    @property
    def router(self) -> str:
        """What the public name leads to while this release is on trial."""
        return f"{self.candidate}_canary"


@dataclass(frozen=True)
class Serving:
    """How the server runs the models: requests of at most `max_batch` rows, `threads` for each of `instances`."""

    max_batch: int
    instances: int
    threads: int


def write(
    folder: Path, names: Names, schema: Schema, onnx: bytes, golden: Mapping[str, Any], serving: Serving, code: Path
) -> None:
    """Write the four models to a new `folder`. `code` is where `stages/` and `serving/` lie, whose files are copied."""
    blocks, inputs, outputs = schema.blocks(), schema.inputs(), schema.outputs()
    _write_network(folder / names.network, network_config(names, blocks, outputs, serving), onnx, outputs)
    encode = folder / names.encode
    _write_encode(encode, encode_config(names, inputs, blocks, serving), schema, golden, code)
    for name in (names.candidate, names.public):
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "README").write_text(
            "An ensemble has no file of its own: see ../config.pbtxt\n"
        )  # DVC drops empty folders
        _write_config(folder / name, ensemble_config(name, names, schema, serving))


def rename(folder: Path, old: Names, new: Names) -> None:
    """Give a repository that was written under one release's names those of another."""
    for config in folder.glob("*/config.pbtxt"):
        config.write_bytes(config.read_bytes().replace(old.candidate.encode(), new.candidate.encode()))
    for before, after in ((old.network, new.network), (old.encode, new.encode), (old.candidate, new.candidate)):
        (folder / before).rename(folder / after)


def add_network(folder: Path, names: Names, called: str, onnx: bytes, delay_ms: float = 0.0) -> str:
    """Put another network beside a release's, with an ensemble that shares its encode part; the ensemble's name.

    `delay_ms`: how long that network lets a request wait for others.
    """
    model = names.beside(called)
    renamed = {names.network: f"{model}_network", names.candidate: model}
    for old, new in renamed.items():
        shutil.copytree(folder / old, folder / new, copy_function=shutil.copyfile)  # not the mode: it may be read-only
        config = _parsed(folder / new)
        config.name = new
        for step in config.ensemble_scheduling.step:
            step.model_name = renamed.get(step.model_name, step.model_name)
        if delay_ms and old == names.network:
            config.dynamic_batching.max_queue_delay_microseconds = round(delay_ms * 1000)
            config.max_batch_size = max(2, config.max_batch_size)  # a full batch would not wait
        _write_config(folder / new, config)
    (folder / renamed[names.network] / "1" / "model.onnx").write_bytes(onnx)
    return model


def schema_of(folder: Path, names: Names) -> Schema:
    """What a release was fitted to; its kinds need not be known here."""
    return Schema.load(folder / names.encode / "1" / "schema.json")


def golden(folder: Path, names: Names) -> tuple[Schema, dict[str, list[Any]]]:
    """The schema of a release, and the raw rows {column: [n]} that every copy of it must answer alike."""
    import base64
    import json

    schema = schema_of(folder, names)
    inputs = schema.inputs()
    rows = json.loads((folder / names.encode / "1" / "golden.json").read_text(encoding="utf-8"))["rows"]
    return schema, {
        name: [base64.b64decode(value) for value in values] if inputs[name].dtype == "bytes" else values
        for name, values in rows.items()
    }


def contract(folder: Path, names: Names) -> dict[str, Any]:
    """What callers of a release rely on: its inputs, its outputs, their labels in order, and its `identifiers`."""
    from tritonclient.grpc import model_config_pb2

    config = _parsed(folder / names.candidate)
    kinds = model_config_pb2.DataType.Name
    labels = {path.name[: -len(_LABELS)]: path for path in (folder / names.network / "1").glob(f"*{_LABELS}")}
    outputs = {each.name: (kinds(each.data_type), tuple(each.dims)) for each in config.output}
    return {
        "inputs": {each.name: (kinds(each.data_type), tuple(each.dims), each.optional) for each in config.input},
        "outputs": {name: tensor for name, tensor in outputs.items() if name not in IDENTIFIERS},
        "identifiers": {name: tensor for name, tensor in outputs.items() if name in IDENTIFIERS},
        "labels": {name: path.read_text(encoding="utf-8").splitlines() for name, path in labels.items()},
    }


def largest_batch(folder: Path, names: Names) -> int:
    """Rows that a request may have at most."""
    return int(_parsed(folder / names.candidate).max_batch_size)


def contract_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """How one contract differs from another: what breaks callers, and what they may like to know."""
    broken: list[str] = []
    noticed: list[str] = []
    for name, (dtype, dims, optional) in new["inputs"].items():
        if name not in old["inputs"]:
            (noticed if optional else broken).append(f"input {name!r} is new")
        elif (dtype, dims) != old["inputs"][name][:2]:
            broken.append(f"input {name!r} is another")
        elif not optional and old["inputs"][name][2]:
            broken.append(f"input {name!r} may no longer be left out")
    for side in ("inputs", "outputs"):
        broken += [f"{side[:-1]} {name!r} is gone" for name in old[side] if name not in new[side]]
    for name, tensor in new["outputs"].items():
        before = old["labels"].get(name, [])
        now = new["labels"].get(name, [])
        if before and now[: len(before)] != before:
            gone = [label for label in before if label not in now]
            broken.append(
                f"{name}: " + (f"the labels {', '.join(gone)} are gone" if gone else "the labels' order is another")
            )
        elif before != now:
            noticed.append(f"{name}: new labels {', '.join(now[len(before) :])}")
        elif name in old["outputs"] and tensor != old["outputs"][name]:
            broken.append(f"output {name!r} is another")
    if new["identifiers"] != old["identifiers"]:
        if old["identifiers"] == TEXT_RELEASE:
            noticed.append("output 'release' is no text any more but 12 ASCII codes, and output 'answer_id' is new")
        else:
            broken.append("output 'release' is text again, and output 'answer_id' is gone")
    return broken, noticed


def network_config(names: Names, blocks: Sequence[Block], outputs: Mapping[str, Tensor], serving: Serving) -> Any:
    """Blocks in, answers out, on ONNX Runtime."""
    config = _config(names.network, serving, backend="onnxruntime")
    for block in blocks:
        _tensor(config.input.add(), block.name, block.tensor)
    for name, tensor in outputs.items():
        described = config.output.add()
        _tensor(described, name, tensor)
        if tensor.labels:
            described.label_filename = f"1/{name}{_LABELS}"
    config.instance_group.add(count=serving.instances)
    config.dynamic_batching.SetInParent()
    config.parameters["intra_op_thread_count"].string_value = str(serving.threads)
    config.parameters["inter_op_thread_count"].string_value = "1"
    return config


def encode_config(names: Names, inputs: Mapping[str, Tensor], blocks: Sequence[Block], serving: Serving) -> Any:
    """Raw columns in, blocks and identifiers out, on Triton's Python backend; warmed up with a golden row."""
    config = _config(names.encode, serving, backend="python")
    warmup = config.model_warmup.add(name="golden", batch_size=1, count=1)
    for name, tensor in inputs.items():
        described = config.input.add()
        _tensor(described, name, tensor)
        described.optional = tensor.optional
        warm = warmup.inputs[name]
        warm.data_type, warm.input_data_file = described.data_type, name
        warm.dims.extend(tensor.shape)
    for block in blocks:
        _tensor(config.output.add(), block.name, Tensor(block.tensor.dtype, block.tensor.shape))
    for output, tensor in IDENTIFIERS.items():
        _tensor(config.output.add(), output, tensor)
    config.instance_group.add(count=serving.instances, kind="KIND_CPU")
    config.dynamic_batching.SetInParent()
    return config


def ensemble_config(name: str, names: Names, schema: Schema, serving: Serving) -> Any:
    """Encode, then network. A block may share its column's name, so inside it is called `block:NAME`.

    The parameter `schema` tells clients what the columns and the target are; what was fitted to features is not theirs.
    """
    config = _config(name, serving, platform="ensemble")
    encode = config.ensemble_scheduling.step.add(model_name=names.encode, model_version=-1)
    network = config.ensemble_scheduling.step.add(model_name=names.network, model_version=-1)
    config.parameters["schema"].string_value = schema.public().text()
    for column, tensor in schema.inputs().items():
        described = config.input.add()
        _tensor(described, column, tensor)
        described.optional = tensor.optional
        encode.input_map[column] = column
    for block in schema.blocks():
        encode.output_map[block.name] = network.input_map[block.name] = f"block:{block.name}"
    for output, tensor in schema.outputs().items():
        _tensor(config.output.add(), output, tensor)
        network.output_map[output] = output
    for output, tensor in IDENTIFIERS.items():
        _tensor(config.output.add(), output, tensor)
        encode.output_map[output] = output
    return config


def _config(name: str, serving: Serving, **how: str) -> Any:
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2.ModelConfig(name=name, max_batch_size=serving.max_batch, **how)


def _tensor(described: Any, name: str, tensor: Tensor) -> None:
    from tritonclient.grpc import model_config_pb2

    described.name = name
    described.data_type = model_config_pb2.DataType.Value(TRITON_TYPES[tensor.dtype])
    described.dims.extend(tensor.shape)
    if tensor.layout:
        described.format = model_config_pb2.ModelInput.Format.Value(tensor.layout)


def _parsed(folder: Path) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _write_config(folder: Path, config: Any) -> None:
    from google.protobuf import text_format

    (folder / "config.pbtxt").write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")


def _write_network(folder: Path, config: Any, onnx: bytes, outputs: Mapping[str, Tensor]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(onnx)
    for name, tensor in outputs.items():
        if tensor.labels:
            (folder / "1" / f"{name}{_LABELS}").write_text("\n".join(tensor.labels) + "\n", encoding="utf-8")
    _write_config(folder, config)


def _write_encode(folder: Path, config: Any, schema: Schema, golden: Mapping[str, Any], code: Path) -> None:
    import base64
    import json

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
    (version / "__pycache__").touch()  # a file of this name keeps Triton from making the folder and reloading for it
    for name, tensor in schema.inputs().items():
        first = golden["rows"][name][0]
        if tensor.dtype == "float64":
            content = struct.pack("<d", first)
        else:
            value = base64.b64decode(first) if tensor.dtype == "bytes" else first.encode()
            content = struct.pack("<I", len(value)) + value
        (warmup / name).write_bytes(content)
    _write_config(folder, config)
