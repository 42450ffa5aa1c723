"""Convert raw values to a Triton request and its response to arrays, for the clients and for the stages."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from stages.schema import MISSING, Schema, Tensor

PROBE, REHEARSAL = "millrace-probe", "millrace-rehearsal"  # ids of our own requests, which a canary does not count
_WIRE = {"bytes": "BYTES", "str": "BYTES", "float64": "FP64"}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a gRPC client of the server at HOST:PORT. Each thread needs its own."""
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(address, channel_args=channel_options(address)) as client:
        yield client


def channel_options(address: str) -> list[tuple[str, int]]:
    """Return the options of a gRPC channel to HOST:PORT: messages of any size, and no proxy to this machine itself."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    return [*options, ("grpc.enable_http_proxy", 0)] if is_loopback(address) else options


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is an address of this machine: localhost, 127.0.0.0/8 or [::1]."""
    host = urlsplit(f"//{address}").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ask(
    client: Any,
    model: str,
    schema: Schema,
    raw: Mapping[str, Sequence[Any]],
    timeout_s: float | None = None,
    request_id: str = "",
) -> dict[str, np.ndarray]:
    """Send raw values {column: [n]} in one request and return the response as `outputs` gives it."""
    import tritonclient.grpc

    tensors = inputs(tritonclient.grpc, schema.inputs(), raw)
    result = client.infer(model, tensors, client_timeout=timeout_s, request_id=request_id)
    return outputs(result, schema.outputs())


def outputs(result: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Convert a response to arrays: the named outputs [n, *shape], `release` [n] and `answer_id` [n] as hex digits.

    Releases that were made by earlier versions give `release` as text and have no `answer_id`.
    """
    arrays = {name: result.as_numpy(name) for name in names}
    release, answer_id = result.as_numpy("release"), result.as_numpy("answer_id")
    arrays["release"] = np.array([(row[0] if row.dtype == object else row.tobytes()).decode() for row in release])
    if answer_id is not None:
        arrays["answer_id"] = np.array([row.tobytes().hex() for row in answer_id])
    return arrays


def inputs(triton: Any, columns: Mapping[str, Tensor], raw: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Convert raw values {column: [n]} to the inputs of a request.

    An optional column may be absent from `raw`; it is then missing in every row.

    Args:
        triton: the module tritonclient.grpc or tritonclient.http.
        columns: what the model takes.
        raw: the values.
    """
    tensors = []
    for column, tensor in columns.items():
        if column not in raw and tensor.optional:
            continue
        values = np.empty((len(raw[column]), 1), np.float64 if tensor.dtype == "float64" else np.object_)
        cells = [MISSING[tensor.dtype] if value is None else value for value in raw[column]]
        values[:, 0] = [value.encode() if isinstance(value, str) else value for value in cells]
        tensors.append(triton.InferInput(column, values.shape, _WIRE[tensor.dtype]))
        tensors[-1].set_data_from_numpy(values)
    return tensors
