"""Asking a served model for answers, with raw values as the table holds them."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stages.errors import UserError
from stages.schema import MISSING, Schema, kind, target_kind

_WIRE = {"bytes": "BYTES", "str": "BYTES", "float64": "FP64"}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A gRPC client of the server at HOST:PORT, closed with the block. One for each thread."""
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(address) as client:
        yield client


def ask(
    client: Any, model: str, schema: Schema, raw: Mapping[str, Sequence[Any]], timeout_s: float | None = None
) -> dict[str, np.ndarray]:
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
    result = client.infer(model, inputs, client_timeout=timeout_s)
    return {name: result.as_numpy(name) for name in (*schema.outputs(), "release")}


def rows(values: Sequence[str], schema: Schema) -> Iterator[tuple[str, dict[str, Any]]]:
    """What people type -> what to call it and a row {column: value}, for each row.

    A JSON object is a row, a .csv file holds several below a row of names, anything else is a value of the only column.
    A cell that is blank is missing; columns that the model does not take are left out.

    Raises:
        UserError: several columns are wanted of a single value, or a file cannot be read.
    """
    names = [column.name for column in schema.features]
    for value in values:
        if value.lstrip().startswith("{"):
            try:
                yield value, json.loads(value)
            except ValueError as error:
                raise UserError(f"{value}: {error}") from error
        elif value.lower().endswith(".csv"):
            try:
                with open(value, encoding="utf-8-sig", newline="") as file:
                    for number, row in enumerate(csv.DictReader(file, skipinitialspace=True), 2):
                        yield f"{value} row {number}", {name: row[name] or None for name in names if name in row}
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise UserError(f"{value} cannot be read: {error}") from error
        elif len(names) == 1:
            yield value, {names[0]: value}
        else:
            some = ", ".join(f'"{name}": ...' for name in names[:3])
            raise UserError(f"{value}: this model takes {len(names)} columns: give '{{{some}}}' or a .csv file")


def predict(client: Any, model: str, schema: Schema, values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Values as people hold them, {column: [n]} (a path, a number) -> for each row its answer and the release.

    Raises:
        ValueError, OSError: a value that its kind cannot take.
    """
    columns = {column.name: kind(column.kind) for column in schema.features}
    for name, module in columns.items():
        if name not in values and not module.OPTIONAL:
            raise ValueError(f"the column {name!r} is missing")
    for name in values:
        if name not in columns:
            raise ValueError(f"unknown column {name!r}: this model takes {', '.join(columns)}")
    raw = {name: [columns[name].raw(value) for value in given] for name, given in values.items()}
    outputs = ask(client, model, schema, raw)
    answers = target_kind(schema.target.kind).answers(outputs, schema.target.fitted)
    return [
        answer | {"release": release.decode()}
        for answer, release in zip(answers, outputs["release"][:, 0], strict=True)
    ]
