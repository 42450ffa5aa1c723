"""Raw values as a request to Triton, and its answer as arrays: what clients and the stages that ask have in common."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from stages.schema import MISSING, Schema, Tensor

PROBE, REHEARSAL = "millrace-probe", "millrace-rehearsal"  # ids of a keeper's requests, which no canary shall count
_WIRE = {"bytes": "BYTES", "str": "BYTES", "float64": "FP64"}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A gRPC client of the server at HOST:PORT, closed with the block. One for each thread."""
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(address, channel_args=channel_options(address)) as client:
        yield client


def channel_options(address: str) -> list[tuple[str, int]]:
    """Of a gRPC channel to HOST:PORT: messages of any size, and no proxy between a machine and itself."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    return [*options, ("grpc.enable_http_proxy", 0)] if is_loopback(address) else options


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is this machine's own: localhost, 127.0.0.0/8 or [::1]."""
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
    """Raw values {column: [n]} -> what `outputs` makes of the answer to one request."""
    import tritonclient.grpc

    sent = inputs(tritonclient.grpc, schema.inputs(), raw)
    result = client.infer(model, sent, client_timeout=timeout_s, request_id=request_id)
    return outputs(result, schema.outputs())


def outputs(result: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
    """A response -> the named outputs [n, *shape], `release` [n] and `answer_id` [n], both as hex digits.

    Releases made by earlier versions give `release` as text, and no `answer_id`.
    """
    arrays = {name: result.as_numpy(name) for name in names}
    release, answer_id = result.as_numpy("release"), result.as_numpy("answer_id")
    arrays["release"] = np.array([(row[0] if row.dtype == object else row.tobytes()).decode() for row in release])
    if answer_id is not None:
        arrays["answer_id"] = np.array([row.tobytes().hex() for row in answer_id])
    return arrays


def inputs(triton: Any, columns: Mapping[str, Tensor], raw: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Raw values {column: [n]} -> the inputs of a request. `triton`: tritonclient.grpc or tritonclient.http.

    An optional column may be absent, which is to be missing in every row.
    """
    made = []
    for column, tensor in columns.items():
        if column not in raw and tensor.optional:
            continue
        values = np.empty((len(raw[column]), 1), np.float64 if tensor.dtype == "float64" else np.object_)
        given = [MISSING[tensor.dtype] if value is None else value for value in raw[column]]
        values[:, 0] = [value.encode() if isinstance(value, str) else value for value in given]
        made.append(triton.InferInput(column, values.shape, _WIRE[tensor.dtype]))
        made[-1].set_data_from_numpy(values)
    return made
