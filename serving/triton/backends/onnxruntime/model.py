"""Triton's "onnxruntime" backend in Python, for servers without the C++ one. It takes the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_TEXT = "TYPE_STRING"
_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    _TEXT: "tensor(string)",
}


class TritonPythonModel:
    """One instance of a model. Triton starts a process, with a session of its own, for each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load `model.onnx` of the version's folder.

        Raises:
            TritonModelException: the file is broken, or its inputs or outputs differ from config.pbtxt.
        """
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        path = folder / (config.get("default_model_filename") or "model.onnx")
        self._batched = config["max_batch_size"] > 0
        try:
            # Bytes instead of a path, so that weights in a file next to it cannot be loaded.
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), _session_options(config), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise pb_utils.TritonModelException(f"{path}: {error}") from error
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._texts = {
            tensor["name"] for side in ("input", "output") for tensor in config[side] if tensor["data_type"] == _TEXT
        }
        self._orders: dict[tuple[str, ...], list[str]] = {}  # requested outputs -> the same in the config's order
        for side, tensors in (("input", self._session.get_inputs()), ("output", self._session.get_outputs())):
            for fault in _mismatches(side, config[side], tensors, self._batched):
                raise pb_utils.TritonModelException(f"{path}: {fault}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request. A request that cannot be answered gets an error of its own."""
        try:
            return self._answer(requests)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            if len(requests) == 1:
                code = (
                    pb_utils.TritonError.INVALID_ARG if isinstance(error, ValueError) else pb_utils.TritonError.INTERNAL
                )
                return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))]
        # Again one at a time, so that a bad request does not fail the others of its batch.
        return [response for request in requests for response in self.execute([request])]

    def _answer(self, requests: list[Any]) -> list[Any]:
        """Run all requests at once, and split the outputs along the batch axis."""
        if not self._batched and len(requests) > 1:
            return [response for request in requests for response in self.execute([request])]
        wanted = [self._wanted(request) for request in requests]
        names = wanted[0]
        if any(requested is not names for requested in wanted):
            names = [name for name in self._outputs if any(name in requested for requested in wanted)]
        feeds = {
            name: _join([self._array(pb_utils.get_input_tensor_by_name(request, name)) for request in requests])
            for name in self._inputs
        }
        arrays = dict(zip(names, self._session.run(names, feeds), strict=True))
        for name in self._texts & arrays.keys():
            arrays[name] = _encoded(arrays[name])
        if len(requests) == 1:
            return [_response(arrays, wanted[0])]
        first = self._inputs[0]
        rows = [pb_utils.get_input_tensor_by_name(request, first).shape()[0] for request in requests]
        ends = np.cumsum(rows)
        return [
            _response({name: arrays[name][end - count : end] for name in requested}, requested)
            for requested, count, end in zip(wanted, rows, ends, strict=True)
        ]

    def _wanted(self, request: Any) -> list[str]:
        """Return the outputs that a request asks for, in the order of config.pbtxt."""
        wanted = tuple(request.requested_output_names())
        if wanted not in self._orders:
            self._orders[wanted] = [name for name in self._outputs if name in wanted]
        return self._orders[wanted]

    def _array(self, tensor: Any) -> np.ndarray:
        """Return an input in the form that onnxruntime takes, with texts as str.

        Raises:
            ValueError: a text is not UTF-8. onnxruntime's Python API requires it; the C++ backend does not.
        """
        array: np.ndarray = tensor.as_numpy()
        if not self._texts or tensor.name() not in self._texts:
            return array
        try:
            texts = [value.decode() for value in array.ravel()]
        except UnicodeDecodeError as error:
            raise ValueError(f"the input {tensor.name()!r} has a text that is not UTF-8: {error}") from error
        return np.array(texts, object).reshape(array.shape)


def _encoded(array: np.ndarray) -> np.ndarray:
    """Return texts in the form that Triton takes, as bytes."""
    return np.array([text.encode() for text in array.ravel()], object).reshape(array.shape)


def _session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Read the C++ backend's parameters that our configurations use."""
    options = onnxruntime.SessionOptions()
    for key, attribute in (
        ("intra_op_thread_count", "intra_op_num_threads"),
        ("inter_op_thread_count", "inter_op_num_threads"),
    ):
        if key in config.get("parameters", {}):
            setattr(options, attribute, int(config["parameters"][key]["string_value"]))
    return options


def _mismatches(side: str, configured: list[dict[str, Any]], tensors: list[Any], batched: bool) -> list[str]:
    """List the differences between config.pbtxt and the graph. The C++ backend rejects the same ones."""
    in_graph = {tensor.name: tensor for tensor in tensors}
    faults = []
    for entry in configured:
        name, tensor = entry["name"], in_graph.get(entry["name"])
        if tensor is None:
            faults.append(f"config.pbtxt names the {side} {name!r}, the graph has {', '.join(map(repr, in_graph))}")
            continue
        if _TYPES.get(entry["data_type"]) != tensor.type:
            faults.append(f"the {side} {name!r} is {tensor.type}, config.pbtxt says {entry['data_type']}")
        dims = [-1] * batched + [int(dim) for dim in entry["dims"]]
        shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
        if len(dims) != len(shape) or any(a != b for a, b in zip(dims, shape, strict=True) if b != -1):
            faults.append(f"the {side} {name!r} has the shape {tensor.shape}, config.pbtxt says {dims}")
    if side == "input":  # an output may be left out of config.pbtxt
        missing = set(in_graph) - {entry["name"] for entry in configured}
        faults += [f"config.pbtxt lacks the input {name!r}" for name in sorted(missing)]
    return faults


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _response(arrays: dict[str, np.ndarray], names: list[str]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, arrays[name]) for name in names])
