"""Asking a served model for answers, with raw values as the table holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stages.schema import MISSING, Schema, kind, target_kind

_WIRE = {"bytes": "BYTES", "str": "BYTES", "float64": "FP64"}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A gRPC client of the server at HOST:PORT, closed with the block. One for each thread."""
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(address) as client:
        yield client


def ask(client: Any, model: str, schema: Schema, raw: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """Raw values {column: [n]} -> every output [n, *shape] and `release` [n, 1], in one request."""
    import tritonclient.grpc

    inputs = []
    for column, tensor in schema.inputs().items():
        if column not in raw and tensor.optional:
            continue
        values = np.empty((len(raw[column]), 1), np.float64 if tensor.dtype == "float64" else np.object_)
        given = [MISSING[tensor.dtype] if value is None else value for value in raw[column]]
        values[:, 0] = [value.encode() if isinstance(value, str) else value for value in given]
        inputs.append(tritonclient.grpc.InferInput(column, values.shape, _WIRE[tensor.dtype]))
        inputs[-1].set_data_from_numpy(values)
    result = client.infer(model, inputs)
    return {name: result.as_numpy(name) for name in (*schema.outputs(), "release")}


def predict(client: Any, model: str, schema: Schema, values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Values as people hold them, {column: [n]} (a path, a number) -> for each row its answer and the release.

    Raises:
        ValueError, OSError: a value that its kind cannot take.
    """
    columns = {column.name: kind(column.kind) for column in schema.features}
    raw = {name: [columns[name].raw(value) for value in given] for name, given in values.items()}
    outputs = ask(client, model, schema, raw)
    answers = target_kind(schema.target.kind).answers(outputs, schema.target.fitted)
    return [
        answer | {"release": release.decode()}
        for answer, release in zip(answers, outputs["release"][:, 0], strict=True)
    ]
