"""The Triton model that turns raw columns into arrays, with a copy of the code that `prepare` used in training."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).absolute().parent
sys.path.insert(0, str(HERE))  # Triton appends this folder, so an installed `stages` would win
sys.dont_write_bytecode = True  # a file written into the repository makes Triton reload the model

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from stages.schema import Received, Schema, TooMuch, kind  # noqa: E402

# The first values of the tensors that batchstrategy.c puts in the place of bad ones, and what was wrong.
REPLACED = {
    b"\xffcut": "its last value is cut short",
    b"\xffbig": "the texts and bytes of a request are at most 256 MiB together",
}
PILLOW = "13.0.0"  # as in both lock files: another version may decode the same picture to other pixels


class TritonPythonModel:
    """Turns raw columns, each [N, 1], into one tensor [N, *shape] per block, and adds the identifiers of each row."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the schema and check the encoding of the golden rows.

        Raises:
            TritonModelException: the rows are encoded differently than by `prepare`, or a package is missing.
        """
        match = re.search(r"_([0-9a-f]{12})_encode$", args["model_name"])
        if match is None:
            raise pb_utils.TritonModelException(f"{args['model_name']!r} is not named NAME_<12 hex digits>_encode")
        self._release = np.frombuffer(match.group(1).encode(), np.uint8)
        rows = json.loads(args["model_config"])["max_batch_size"]
        try:
            self._schema = Schema.load(HERE / "schema.json").bounded(rows)
            kinds = {column.name: kind(column.kind) for column in self._schema.features}
            self._received = {name: module.received for name, module in kinds.items() if isinstance(module, Received)}
            self._inputs = self._schema.inputs()
            self._check_golden()
        except ModuleNotFoundError as error:
            raise pb_utils.TritonModelException(
                f"this server's Python {sys.version.split()[0]} ({sys.prefix}) has no {error.name!r}; pictures need"
                f" `pip install pillow=={PILLOW}` there"
            ) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request. A value that cannot be encoded is INVALID_ARG for its request alone."""
        try:
            return self._answer(requests)
        except Exception as error:  # a bug in a kind must not fail the other requests of the batch either
            if len(requests) == 1:
                code = pb_utils.TritonError.INVALID_ARG
                if not isinstance(error, ValueError):
                    code = pb_utils.TritonError.INTERNAL
                    error = RuntimeError(f"{type(error).__name__}: {error}")
                return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))]
        return [response for request in requests for response in self.execute([request])]

    def _answer(self, requests: list[Any]) -> list[Any]:
        """Encode the rows of all requests at once, and split the blocks by request."""
        raws = [self._raw(request) for request in requests]
        counts = [len(next(iter(raw.values()))) for raw in raws]
        joined = {name: [value for raw in raws for value in raw[name]] for name in self._inputs}
        try:
            blocks = self._schema.encode(joined)
        except TooMuch:  # no single row is at fault
            raise
        except ValueError:
            if len(requests) == 1:
                self._raise_for_row(joined, counts[0])
            raise
        responses, start = [], 0
        for request, count in zip(requests, counts, strict=True):
            tensors = {name: array[start : start + count] for name, array in blocks.items()}
            tensors["release"] = np.tile(self._release, (count, 1))
            tensors["answer_id"] = np.frombuffer(os.urandom(16 * count), np.uint8).reshape(count, 16)
            wanted = request.requested_output_names()
            sent = [pb_utils.Tensor(name, array) for name, array in tensors.items() if name in wanted]
            responses.append(pb_utils.InferenceResponse(sent))
            start += count
        return responses

    def _raw(self, request: Any) -> dict[str, list[Any]]:
        """Return {column: [N]} as the table stores it, with None in every row of an absent optional column."""
        sent = {tensor.name(): tensor.as_numpy()[:, 0] for tensor in request.inputs()}
        if not sent:
            raise ValueError(f"no column was sent: this model takes {', '.join(self._inputs)}")
        rows = len(next(iter(sent.values())))
        raw: dict[str, list[Any]] = {}
        for name, tensor in self._inputs.items():
            if name in sent:
                values = sent[name].tolist()
                if values and values[0] in REPLACED:
                    raise ValueError(f"{name}: {REPLACED[values[0]]}")
                if tensor.dtype == "str":
                    values = _texts(name, values)
                elif name in self._received:
                    values = [self._received[name](value) for value in values]
                raw[name] = values
            elif tensor.optional:
                raw[name] = [None] * rows
            else:
                raise ValueError(f"the column {name!r} is missing")
        return raw

    def _raise_for_row(self, raw: dict[str, list[Any]], rows: int) -> None:
        """Raise an error that names the first bad row, where there are several rows."""
        for row in range(rows if rows > 1 else 0):
            try:
                self._schema.encode({name: values[row : row + 1] for name, values in raw.items()})
            except ValueError as error:
                raise ValueError(f"row {row}: {error}") from error

    def _check_golden(self) -> None:
        """Check that the golden rows are encoded as in training.

        Another version of Pillow, numpy or Unicode may encode them differently, and all predictions would be wrong.
        """
        golden = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
        rows = {
            name: [base64.b64decode(value) for value in values] if self._inputs[name].dtype == "bytes" else values
            for name, values in golden["rows"].items()
        }
        blocks = self._schema.encode(rows)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in blocks.values())).hexdigest()
        if digest != golden["sha256"]:
            raise pb_utils.TritonModelException(
                f"the golden rows are encoded differently than in training (SHA-256 {digest[:12]}, not"
                f" {golden['sha256'][:12]}): this server has {_versions()}, and should have Pillow {PILLOW}"
            )


def _texts(name: str, values: list[bytes]) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            place = f"row {row}: " if len(values) > 1 else ""
            raise ValueError(f"{place}{name}: not UTF-8 ({error})") from error
    return texts


def _versions() -> str:
    pillow = getattr(sys.modules.get("PIL"), "__version__", "not loaded")
    return f"Python {sys.version.split()[0]}, numpy {np.__version__}, Pillow {pillow}"
