"""A bad request never affects the requests that are batched with it, in a real server."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serving.triton import processes
from serving.triton.launcher import PROJECT, Endpoint
from serving.triton.repository import BATCHING
from tests.support.toy_repository import ENCODE, SCHEMA, _infer_encode, _largest_batch, _png, _rows

grpc = pytest.importorskip("grpc")
pb = pytest.importorskip("tritonclient.grpc.service_pb2")
services = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")

NUMBER = struct.pack("<d", 1.0)
INVALID = "INVALID_ARGUMENT"


def texts(*values: bytes) -> bytes:
    """Return values in Triton's form: each with its length before it."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def request(**columns: tuple[list[int], bytes] | tuple[list[int], bytes, str]) -> Any:
    """Make a request to ENCODE. A column is its shape, its bytes, and its type where that is not BYTES."""
    message = pb.ModelInferRequest(model_name=ENCODE)
    for name, (shape, content, *dtype) in columns.items():
        message.inputs.add(name=name, shape=shape, datatype=dtype[0] if dtype else "BYTES")
        message.raw_input_contents.append(content)
    return message


def photo(**more: Any) -> Any:
    return request(photo=([1, 1], texts(_png(0))), **more)


def with_output(name: str) -> Any:
    message = photo()
    message.outputs.add(name=name)
    return message


def with_parameter(name: str, **value: Any) -> Any:
    message = photo()
    message.parameters[name].CopyFrom(pb.InferParameter(**value))
    return message


def in_shared_memory() -> Any:
    message = photo()
    del message.raw_input_contents[:]
    message.inputs[0].parameters["shared_memory_region"].string_param = "/nobody's"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 100
    return message


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """Make a black picture in a PNG that is as small as possible."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compressobj()
    rows = b"".join(pixels.compress(bytes(1 + width)) for _ in range(height)) + pixels.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


CUT = {
    "photo cut short": lambda: request(photo=([1, 1], texts(_png(0))[:-1])),
    "photo cut to nothing": lambda: request(photo=([1, 1], texts(_png(0))[:4])),
    "second photo cut": lambda: request(photo=([2, 1], texts(_png(0), _png(1))[:-20])),
    "length of 4 GB": lambda: request(photo=([1, 1], b"\xff\xff\xff\xff" + _png(0))),
    "text cut short": lambda: photo(note=([1, 1], texts(b"word")[:-1])),
    "text cut to nothing": lambda: photo(note=([1, 1], texts(b"word")[:4])),
    "64 texts, the last one cut": lambda: request(
        photo=([64, 1], texts(*[_png(0)] * 64)), note=([64, 1], texts(*[b"word"] * 64)[:-1])
    ),
}
BROKEN: dict[str, Callable[[], Any]] = CUT | {
    "first photo cut": lambda: request(photo=([2, 1], texts(_png(0))[:-5] + texts(_png(1)))),
    "half a length": lambda: request(photo=([1, 1], b"\x01\x00")),
    "no bytes at all": lambda: request(photo=([1, 1], b"")),
    "more values than the shape": lambda: request(photo=([1, 1], texts(_png(0), _png(1)))),
    "fewer values than the shape": lambda: request(photo=([3, 1], texts(_png(0), _png(1)))),
    "no photo": lambda: request(photo=([1, 1], texts(b""))),
    "not UTF-8": lambda: photo(note=([1, 1], texts(b"\xff\xfe"))),
    "a number too few": lambda: photo(weight=([1, 1], NUMBER[:-1], "FP64")),
    "infinite": lambda: photo(weight=([1, 1], struct.pack("<d", np.inf), "FP64")),
    "another type": lambda: photo(weight=([1, 1], NUMBER[:4], "FP32")),
    "text for a number": lambda: photo(weight=([1, 1], texts(b"1.0"))),
    "no row": lambda: request(photo=([0, 1], b"")),
    "rows below none": lambda: request(photo=([-1, 1], texts(_png(0)))),
    "too many rows": lambda: request(photo=([65, 1], texts(*[_png(0)] * 65))),
    "a shape beyond 64 bits": lambda: request(photo=([2**40, 2**40], texts(_png(0)))),
    "a shape of another rank": lambda: request(photo=([1], texts(_png(0)))),
    "no shape": lambda: request(photo=([], texts(_png(0)))),
    "unlike rows": lambda: photo(note=([2, 1], texts(b"a", b"b"))),
    "a column missing": lambda: request(note=([1, 1], texts(b"a"))),
    "a column unknown": lambda: photo(weigth=([1, 1], NUMBER, "FP64")),
    "no column": lambda: request(),
    "an output unknown": lambda: with_output("nothing"),
    "a bomb": lambda: request(photo=([1, 1], texts(png(9000, 9000)))),
    "64 bombs": lambda: request(photo=([64, 1], texts(*[png(8000, 1000)] * 64))),
    "text beside the pixels": lambda: request(
        photo=([1, 1], texts(png(8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**20), 9)) * 1000)))
    ),
}
ODD: dict[str, Callable[[], Any]] = {  # answered, and harmless
    "missing": lambda: photo(note=([1, 1], texts(b"")), weight=([1, 1], struct.pack("<d", np.nan), "FP64")),
    "a text of a megabyte": lambda: photo(note=([1, 1], texts(b"a" * 2**20))),
    "an id": lambda: with_parameter("sequence_id", int64_param=7),
    "a priority": lambda: with_parameter("priority", uint64_param=9),
    "a time-out": lambda: with_parameter("timeout", int64_param=1),
    "a parameter": lambda: with_parameter("anything", string_param='"\\\0'),
}


@pytest.fixture(scope="module")
def stub(endpoint: Endpoint) -> Iterator[Any]:
    with grpc.insecure_channel(endpoint.grpc) as channel:
        yield services.GRPCInferenceServiceStub(channel)


def status_in_batch(client: Any, stub: Any, message: Any) -> tuple[str, str]:
    """Send a request among good ones, and check the answers to those. Returns the code and the message that it gets."""

    def ask() -> tuple[str, str]:
        try:
            stub.ModelInfer(message, timeout=20)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", ""

    sent = {"photo", *(tensor.name for tensor in message.inputs)}  # Triton batches requests of the same columns
    good = [{name: values for name, values in _rows(rows).items() if name in sent} for rows in (2, 1, 3)]
    with ThreadPoolExecutor(len(good) + 1) as pool:
        bad = pool.submit(ask)
        answers = list(pool.map(lambda raw: _infer_encode(client, raw), good))
    for raw, answer in zip(good, answers, strict=True):
        for name, expected in SCHEMA.encode(raw).items():
            np.testing.assert_array_equal(answer.as_numpy(name), expected)
    return bad.result()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_fails_alone(client: Any, stub: Any, name: str) -> None:
    code, message = status_in_batch(client, stub, BROKEN[name]())
    assert code == INVALID, message


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_answered(client: Any, stub: Any, name: str) -> None:
    code, message = status_in_batch(client, stub, ODD[name]())
    assert code == "OK", message


def test_a_cut_text_fails_alone_in_our_onnx_backend(stub: Any) -> None:
    def ask(content: bytes) -> str:
        message = pb.ModelInferRequest(model_name="texts")
        message.inputs.add(name="s", shape=[1, 2], datatype="BYTES")
        message.raw_input_contents.append(content)
        try:
            return str(stub.ModelInfer(message, timeout=20).raw_output_contents)
        except grpc.RpcError as error:
            return str(error.code().name)

    good = texts(b"a", b"word")
    right = ask(good)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, [good, good[:-1], good, good])) == [right, INVALID, right, right]


def test_unknown_shared_memory_fails_alone(client: Any, stub: Any) -> None:
    code, message = status_in_batch(client, stub, in_shared_memory())
    assert code == "NOT_FOUND", message


def test_the_requests_were_really_batched(client: Any, stub: Any) -> None:
    status_in_batch(client, stub, CUT["photo cut short"]())
    assert _largest_batch(client, ENCODE) > 3


@pytest.mark.parametrize("name", CUT)
def test_a_cut_column_is_named(stub: Any, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(CUT[name](), timeout=20)
    column = "note" if "text" in name else "photo"
    assert f"{column}: its last value is cut short" in caught.value.details()


def test_the_batching_library_was_built_from_its_source() -> None:
    source = (PROJECT / BATCHING).with_suffix(".c").read_bytes()
    assert hashlib.sha256(source).hexdigest().encode() in (PROJECT / BATCHING).read_bytes(), "run `make batching`"


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_the_batching_library_compiles_without_a_warning(tmp_path: Any) -> None:
    source = (PROJECT / BATCHING).with_suffix(".c")
    flags = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-shared", "-fPIC", "-nostdlib", '-DSOURCE=""']
    subprocess.run(["cc", *flags, "-o", tmp_path / "made.so", source], check=True)


def test_a_hung_worker_can_be_killed_and_replaced(client: Any, endpoint: Endpoint, repository: Any) -> None:
    guard = endpoint.process.pid

    def workers(model: str) -> set[int]:
        return {worker.pid for worker in processes.workers(processes.family(guard), model)}

    (hung,), other = workers(ENCODE), workers("plain")
    os.kill(hung, signal.SIGSTOP)
    processes.kill({hung}, guard)
    os.utime(repository / ENCODE / "1")
    client.load_model(ENCODE, headers=endpoint.grpc_admin)
    _infer_encode(client, _rows(1))
    assert hung not in workers(ENCODE) and len(workers(ENCODE)) == 1
    assert workers("plain") == other
