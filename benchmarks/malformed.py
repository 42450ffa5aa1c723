"""Random malformed requests, as gRPC messages and as bytes of an HTTP connection."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.mixed import Mixed

SIZES = (0, -1, 1, 2, 63, 65, 1000, 2**31, 2**40, 2**63 - 1)
TYPES = ("BYTES", "FP64", "FP32", "INT64", "UINT8", "BOOL", "FP16", "", "STRING", "bytes")
TEXTS = ("", "\0", "a" * 5000, "日本", "2024-02-30", "1e400", "nan", "../../etc", '"\\', "\U0001f600")
NUMBERS = (np.nan, np.inf, -np.inf, 1e39, -1e308, 5e-324, 2.0**63)
PARAMETERS = (
    "sequence_id", "sequence_start", "priority", "timeout", "classification", "binary_data_size", "binary_data",
    "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "headers", "triton_enable_empty_final",
)  # fmt: skip
HEADERS = (
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\0",
    b"RIFF\0\0\0\0WEBP",
    b"BM",
    b"\0\0\1\0",
    b"P6 ",
)


class Malformed:
    """A stream of malformed requests; the same seed gives the same stream."""

    def __init__(self, mixed: Mixed, seed: int) -> None:
        self._mixed = mixed
        self._random = np.random.default_rng(seed)
        self._models = [mixed.names.public, mixed.names.candidate, mixed.names.encode, mixed.names.network]
        self._outputs = [*mixed.schema.outputs(), "release", "answer_id", *mixed.schema.groups(), "nothing"]

    def message(self) -> Any:
        """A gRPC request with one or more faults, sometimes none."""
        from tritonclient.grpc import service_pb2 as pb

        message = pb.ModelInferRequest(model_name=self._mixed.names.public)
        for name, values in self._rows(self._number(1, 4)).items():
            kind = "FP64" if isinstance(values[0], float) else "BYTES"
            message.inputs.add(name=name, datatype=kind, shape=[len(values), 1])
            message.raw_input_contents.append(b"".join(map(_packed, values)))
        faults: tuple[Callable[[Any], None], ...] = (
            self._cut, self._cut, self._value, self._value, self._shape, self._type, self._column, self._contents,
            self._parameter, self._output, self._model, self._bytes,
        )  # fmt: skip
        for _ in range(self._number(0, 3)):
            self._pick(faults)(message)
        return message

    def exchange(self) -> bytes:
        """The bytes of an HTTP request."""
        body, headers = self._binary() if self._number(0, 2) else (self._json(), {})
        path = f"/v2/models/{self._pick((*self._models[:1] * 20, *self._models, '..', 'x' * 300))}/infer"
        headers = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body))} | headers
        match self._number(0, 15):
            case 0:
                headers["Inference-Header-Content-Length"] = str(self._pick((0, -1, len(body) // 2, 10**9, "x")))
            case 1:
                body = gzip.compress(body)
                headers |= {
                    "Content-Encoding": self._pick(("gzip", "deflate", "br")),
                    "Content-Length": str(len(body)),
                }
            case 2:
                headers["Content-Length"] = str(self._pick((0, len(body) // 2, len(body) + 10, "x", -1)))
            case 3:
                path = str(self._pick(("/v2/models//infer", "/v2/%00", "/v2/models/a/versions/x/infer", "/", "/v2")))
            case 4:
                body = bytes(self._damaged(body))
                headers["Content-Length"] = str(len(body))
        lines = [f"{self._pick(('POST',) * 40 + ('GET', 'PUT', 'XXXX'))} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body

    def _binary(self) -> tuple[bytes, dict[str, str]]:
        """A gRPC message's inputs in the binary form of HTTP, and the header with their offset."""
        message, inputs = self.message(), []
        for tensor, content in zip(message.inputs, message.raw_input_contents, strict=False):
            size = len(content) if self._number(0, 8) else self._pick(SIZES)
            inputs.append({"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)})
            inputs[-1]["parameters"] = {"binary_data_size": size}
        outputs = [{"name": output.name} for output in message.outputs]
        tree = {"inputs": inputs} | ({"outputs": outputs} if outputs else {})
        header = json.dumps(tree).encode()
        return header + b"".join(message.raw_input_contents), {"Inference-Header-Content-Length": str(len(header))}

    def _json(self) -> bytes:
        inputs: list[dict[str, Any]] = []
        for name, values in self._rows(self._number(1, 3)).items():
            numbers = isinstance(values[0], float)
            data: list[Any] = [value if numbers else _as_text(value) for value in values]
            inputs.append({"name": name, "datatype": "FP64" if numbers else "BYTES", "data": data})
            inputs[-1]["shape"] = [len(values), 1]
        tree: dict[str, Any] = {"inputs": inputs}
        for _ in range(self._number(0, 3)):
            value = self._pick((None, [], {}, -1, 1e300, "x", True, [[[]]], self._pick(TEXTS), self._pick(SIZES)))
            place: dict[str, Any] = self._pick((tree, *inputs))
            place[str(self._pick((*place, "outputs", "parameters", "id", "data", "shape")))] = value
        text = json.dumps(tree)
        return text.encode("utf-8", "surrogatepass")

    def _rows(self, count: int) -> dict[str, list[Any]]:
        first = self._number(0, 60)
        return {name: (values * 2)[first : first + count] for name, values in self._mixed.rows.items()}

    def _cut(self, message: Any) -> None:
        place = self._index(message.raw_input_contents)
        if place is not None:
            content = message.raw_input_contents[place]
            message.raw_input_contents[place] = content[: max(0, len(content) - self._number(1, 40))]

    def _bytes(self, message: Any) -> None:
        place = self._index(message.raw_input_contents)
        if place is not None:
            message.raw_input_contents[place] = bytes(self._damaged(message.raw_input_contents[place]))

    def _value(self, message: Any) -> None:
        place = self._index(message.raw_input_contents)
        if place is None or place >= len(message.inputs):
            return
        if message.inputs[place].datatype == "FP64":
            content = struct.pack("<d", self._pick(NUMBERS))
        elif message.inputs[place].name == "photo":
            content = _packed(self._picture())
        else:
            text = self._pick(TEXTS).encode("utf-8", "surrogatepass")
            content = _packed(self._pick((text, b"\xff\xfe", self._random.bytes(20), b"word " * 20_000)))
        rows = max(1, min(64, message.inputs[place].shape[0] if message.inputs[place].shape else 1))
        message.raw_input_contents[place] = content * rows

    def _picture(self) -> bytes:
        valid = self._pick(self._mixed.rows["photo"])
        header = struct.pack(">II", *(int(self._random.choice((0, 1, 8000, 65_535, 2**31 - 1))) for _ in range(2)))
        wrong_size = valid[:16] + header + valid[24:]
        return bytes(
            self._pick((self._damaged(valid), wrong_size, self._pick(HEADERS) + self._random.bytes(200), valid * 2))
        )

    def _shape(self, message: Any) -> None:
        place = self._index(message.inputs)
        if place is not None:
            shape = [self._pick(SIZES) for _ in range(self._number(0, 3))]
            del message.inputs[place].shape[:]
            message.inputs[place].shape.extend(shape)

    def _type(self, message: Any) -> None:
        place = self._index(message.inputs)
        if place is not None:
            message.inputs[place].datatype = self._pick(TYPES)

    def _column(self, message: Any) -> None:
        place = self._index(message.inputs)
        if place is None:
            return
        match self._number(0, 3):
            case 0:
                del message.inputs[place]
            case 1:
                message.inputs.add().CopyFrom(message.inputs[place])
            case 2:
                message.inputs[place].name = self._pick(TEXTS).replace("\0", "0")
            case _:
                del message.raw_input_contents[:]

    def _contents(self, message: Any) -> None:
        """Add values as the message's own fields, with or without the raw ones."""
        place = self._index(message.inputs)
        if place is not None:
            contents = message.inputs[place].contents
            self._pick((contents.bytes_contents, contents.bytes_contents)).extend([b"x", b""])
            contents.fp64_contents.extend([1.0, float("nan")])
            if self._number(0, 2):
                del message.raw_input_contents[:]

    def _parameter(self, message: Any) -> None:
        holder = self._pick((message, *message.inputs, *message.outputs))
        value = holder.parameters[self._pick(PARAMETERS)]
        match self._number(0, 4):
            case 0:
                value.int64_param = self._pick(SIZES)
            case 1:
                value.string_param = self._pick(TEXTS[:4])
            case 2:
                value.bool_param = True
            case _:
                value.double_param = 1.5

    def _output(self, message: Any) -> None:
        output = message.outputs.add(name=self._pick(self._outputs))
        if self._number(0, 2):
            output.parameters["classification"].int64_param = self._pick((0, 1, 3, 1000, -1))

    def _model(self, message: Any) -> None:
        message.model_name = self._pick((*self._models, "", "nothing"))
        message.model_version = self._pick(("", "1", "2", "x", "99999999999999999999"))

    def _damaged(self, content: bytes) -> bytearray:
        damaged = bytearray(content)
        for _ in range(self._number(1, 6)):
            if damaged:
                damaged[self._number(0, len(damaged))] = self._number(0, 256)
        return damaged

    def _index(self, several: Any) -> int | None:
        return self._number(0, len(several)) if len(several) else None

    def _number(self, least: int, below: int) -> int:
        return int(self._random.integers(least, below))

    def _pick(self, several: Any) -> Any:
        return several[self._number(0, len(several))]


def _packed(value: Any) -> bytes:
    if isinstance(value, float):
        return struct.pack("<d", value)
    content = value.encode() if isinstance(value, str) else bytes(value)
    return struct.pack("<I", len(content)) + content


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode()
