"""The configuration of Triton's models, `config.pbtxt`: built, read and written with Triton's own protobuf classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.triton.names import Names
from stages.schema import IDENTIFIERS, Block, Schema, Tensor

FILE = "config.pbtxt"
LABELS_SUFFIX = ".labels.txt"
TRITON_TYPES = {
    "bytes": "TYPE_STRING",
    "str": "TYPE_STRING",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


@dataclass(frozen=True)
class Serving:
    """How the server runs the models: requests of at most `max_batch` rows, `threads` for each of `instances`."""

    max_batch: int
    instances: int
    threads: int


def load(path: Path) -> Any:
    """Read a `config.pbtxt` as a ModelConfig."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def dump(config: Any, path: Path) -> None:
    """Write a ModelConfig as a `config.pbtxt`."""
    from google.protobuf import text_format

    path.write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")


def network_config(names: Names, blocks: Sequence[Block], outputs: Mapping[str, Tensor], serving: Serving) -> Any:
    """Build the network's configuration: blocks in, predictions out, on ONNX Runtime."""
    config = _config(names.network, serving, backend="onnxruntime")
    for block in blocks:
        _describe(config.input.add(), block.name, block.tensor)
    for name, tensor in outputs.items():
        output = config.output.add()
        _describe(output, name, tensor)
        if tensor.labels:
            output.label_filename = f"1/{name}{LABELS_SUFFIX}"
    config.instance_group.add(count=serving.instances)
    config.dynamic_batching.SetInParent()
    config.parameters["intra_op_thread_count"].string_value = str(serving.threads)
    config.parameters["inter_op_thread_count"].string_value = "1"
    return config


def encode_config(names: Names, inputs: Mapping[str, Tensor], blocks: Sequence[Block], serving: Serving) -> Any:
    """Build the encode model's configuration: raw columns in, blocks and identifiers out, on the Python backend.

    Triton warms the model up with one golden row.
    """
    config = _config(names.encode, serving, backend="python")
    warmup = config.model_warmup.add(name="golden", batch_size=1, count=1)
    for name, tensor in inputs.items():
        column = config.input.add()
        _describe(column, name, tensor)
        column.optional = tensor.optional
        warmup_input = warmup.inputs[name]
        warmup_input.data_type, warmup_input.input_data_file = column.data_type, name
        warmup_input.dims.extend(tensor.shape)
    for block in blocks:
        _describe(config.output.add(), block.name, Tensor(block.tensor.dtype, block.tensor.shape))
    for name, tensor in IDENTIFIERS.items():
        _describe(config.output.add(), name, tensor)
    config.instance_group.add(count=serving.instances, kind="KIND_CPU")
    config.dynamic_batching.SetInParent()
    return config


def ensemble_config(name: str, names: Names, schema: Schema, serving: Serving) -> Any:
    """Build an ensemble's configuration: the encode model, then the network.

    A block may have the name of its column, so between the two models it is called `block:NAME`. The parameter
    `schema` describes the columns and the target to clients; what was fitted to the features is left out of it.
    """
    config = _config(name, serving, platform="ensemble")
    encode = config.ensemble_scheduling.step.add(model_name=names.encode, model_version=-1)
    network = config.ensemble_scheduling.step.add(model_name=names.network, model_version=-1)
    config.parameters["schema"].string_value = schema.public().text()
    for column, tensor in schema.inputs().items():
        described = config.input.add()
        _describe(described, column, tensor)
        described.optional = tensor.optional
        encode.input_map[column] = column
    for block in schema.blocks():
        encode.output_map[block.name] = network.input_map[block.name] = f"block:{block.name}"
    for output, tensor in schema.outputs().items():
        _describe(config.output.add(), output, tensor)
        network.output_map[output] = output
    for output, tensor in IDENTIFIERS.items():
        _describe(config.output.add(), output, tensor)
        encode.output_map[output] = output
    return config


def router_config(name: str, ensemble: Any) -> Any:
    """Build the configuration of a canary's router, which has the inputs and outputs of the live `ensemble`."""
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig(name=name, max_batch_size=ensemble.max_batch_size, backend="python")
    config.input.extend(ensemble.input)
    config.output.extend(ensemble.output)
    config.instance_group.add(count=1, kind="KIND_CPU")
    config.dynamic_batching.SetInParent()
    return config


def routed_config(public: str, router: str, ensemble: Any) -> Any:
    """Build the public model's configuration for a canary: the live `ensemble`, with the router as its only step.

    The parameter `live` names the live ensemble.
    """
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig()
    config.CopyFrom(ensemble)
    config.name = public
    config.parameters["live"].string_value = ensemble.name
    del config.ensemble_scheduling.step[:]
    step = config.ensemble_scheduling.step.add(model_name=router, model_version=-1)
    step.input_map.update({tensor.name: tensor.name for tensor in ensemble.input})
    step.output_map.update({tensor.name: tensor.name for tensor in ensemble.output})
    return config


def _config(name: str, serving: Serving, **runs_on: str) -> Any:
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2.ModelConfig(name=name, max_batch_size=serving.max_batch, **runs_on)


def _describe(described: Any, name: str, tensor: Tensor) -> None:
    """Fill in a ModelInput or ModelOutput."""
    from tritonclient.grpc import model_config_pb2

    described.name = name
    described.data_type = model_config_pb2.DataType.Value(TRITON_TYPES[tensor.dtype])
    described.dims.extend(tensor.shape)
    if tensor.layout:
        described.format = model_config_pb2.ModelInput.Format.Value(tensor.layout)
