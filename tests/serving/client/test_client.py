"""The client and `millrace predict`, against a real Triton with a network that has learnt nothing."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from serving.client import (
    AccessDenied,
    AsyncClient,
    Client,
    RowError,
    Served,
    ServerError,
    TlsError,
    Unavailable,
    transport,
)
from serving.client.question import IN_FLIGHT
from serving.triton import manifest
from serving.triton import repository as layout
from serving.triton.config import Serving
from serving.triton.launcher import Endpoint, running
from serving.triton.names import Names, rename
from stages.schema import Column, Schema, kind
from tests.support import gateway
from tests.support.project import ROOT, environment

OLD, NEW = "00000000000a", "00000000000b"
TOWNS = ["Ulm", "Bonn", "Ulm, too", "000000000000"]
LABELS = {OLD: ["no", "perhaps", "yes"], NEW: ["nein", "ja", "vielleicht"]}
MAX_BATCH = 8


class Toy(NamedTuple):
    """Two releases of one model, the first of them public: one network, whose labels have other names."""

    endpoint: Endpoint
    config: Path  # of the public model
    texts: dict[str, str]  # what is in it, by release
    schema: Schema
    network: Any

    def address(self, protocol: str) -> str:
        return f"{protocol}://{getattr(self.endpoint, protocol)}"

    def expected(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Rows as the table stores them -> probabilities [n, 3], by the code and the weights of the training."""
        import torch

        raw = {column.name: [row.get(column.name) for row in rows] for column in self.schema.features}
        with torch.no_grad():
            blocks = [torch.from_numpy(array) for array in self.schema.encode(raw).values()]
            return self.network.answer(self.network(blocks))["probabilities"].numpy()

    def show(self, release: str) -> None:
        """Move the public name to a release."""
        import tritonclient.grpc

        self.config.write_text(self.texts[release])
        with tritonclient.grpc.InferenceServerClient(self.endpoint.grpc) as admin:
            admin.load_model("toy", headers=self.endpoint.grpc_admin)


@pytest.fixture(scope="module")
def toy(a_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    import torch

    from stages import export
    from stages.networks import network

    folder = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    schemas = {release: schema(labels) for release, labels in LABELS.items()}
    net = network.Network(schemas[OLD], network.resolve(schemas[OLD], {"encoders": {"remark": {"size": 8}}})).eval()
    onnx = export.to_onnx(net, schemas[OLD])
    raw = {"amount": [1.0], "town": ["Ulm"], "remark": ["a house"]}
    arrays = b"".join(array.tobytes() for array in schemas[OLD].encode(raw).values())
    golden = {"rows": raw, "sha256": hashlib.sha256(arrays).hexdigest()}
    for release, described in schemas.items():
        names, limits = Names("toy", release), Serving(MAX_BATCH, 1, 1)
        layout.write(folder / release, names, described, onnx, golden, limits, ROOT)
    for path in (folder / NEW).glob(f"*{NEW}*"):
        path.rename(folder / OLD / path.name)
    texts = {release: (folder / release / "toy" / "config.pbtxt").read_text() for release in schemas}
    with running(folder / OLD, ["toy", f"toy_{OLD}", f"toy_{NEW}"], drain_s=0) as endpoint:
        yield Toy(endpoint, folder / OLD / "toy" / "config.pbtxt", texts, schemas[OLD], net)


def schema(labels: list[str]) -> Schema:
    """Three kinds of columns, fitted on next to nothing."""
    training = {
        "amount": ("number", [None, 1.0, 2.5, 1e6]),
        "town": ("category", TOWNS * 2),
        "remark": ("text", ["a fine house", "a house", None]),
    }
    features = tuple(
        Column(name, of, fitted=kind(of).fit([values], kind(of).Options())) for name, (of, values) in training.items()
    )
    return Schema(features, Column("answer", "target_class", fitted={"labels": labels, "counts": [1, 1, 1]}))


def rows(count: int) -> list[dict[str, Any]]:
    """Rows with cells that are missing, not sent, or that training did not have."""
    chance = random.Random(0)
    cells = {
        "amount": [None, 0.0, 3, 1e30, -2.5],
        "town": [None, *TOWNS, "unheard of", "ß ☂"],
        "remark": [None, "a fine house", "never heard words", "x" * 1000],
    }
    return [
        {name: chance.choice(values) for name, values in cells.items() if chance.random() < 0.9} for _ in range(count)
    ]


def predicted(server: str, what: Any, asynchronous: bool, **options: Any) -> Any:
    """`predict` by either client."""
    if not asynchronous:
        with Client(server, "toy", **options) as client:
            return client.predict(what, probabilities=True)

    async def ask() -> Any:
        async with AsyncClient(server, "toy", **options) as client:
            return await client.predict(what, probabilities=True)

    return asyncio.run(ask())


EACH_WAY = pytest.mark.parametrize(
    ("protocol", "asynchronous"), [("grpc", False), ("grpc", True), ("http", False), ("http", True)]
)


@EACH_WAY
def test_rows_are_answered_in_order_as_the_network_answers_them(toy: Toy, protocol: str, asynchronous: bool) -> None:
    given = rows(3 * MAX_BATCH + 1)
    answers = predicted(toy.address(protocol), given, asynchronous)
    expected = toy.expected(given)
    served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in answers])
    assert np.abs(served - expected).max() <= 1e-5
    for answer, row in zip(answers, expected, strict=True):
        assert answer["label"] == LABELS[OLD][row.argmax()]
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["release"] == OLD
    ids = {answer["answer_id"] for answer in answers}
    assert len(ids) == len(given) and all(len(bytes.fromhex(one)) == 16 for one in ids)
    alone = predicted(toy.address(protocol), given[5], asynchronous)
    assert alone["probabilities"] == pytest.approx(answers[5]["probabilities"], abs=1e-6)


def test_a_frame_is_answered_with_a_frame(toy: Toy) -> None:
    frame = pd.DataFrame(
        {
            "town": pd.array(["Ulm", pd.NA, "Bonn"], dtype="string"),
            "amount": pd.array([3, pd.NA, 1], dtype="Int64"),
            "answer": ["yes", "yes", "no"],
        },
        index=["x", "y", "z"],
    )
    with Client(toy.endpoint.grpc, "toy") as client:
        answers = client.predict(frame, probabilities=True)
        assert list(answers.index) == ["x", "y", "z"]
        expected = toy.expected([{"town": "Ulm", "amount": 3.0}, {}, {"town": "Bonn", "amount": 1.0}])
        assert np.abs(answers[[f"probabilities[{label}]" for label in LABELS[OLD]]] - expected).max(axis=None) <= 1e-5
        twice = pd.concat([frame, frame], axis=1)
        with pytest.raises(ValueError, match="two columns of the data frame have one name"):
            client.predict(twice)


WRONG = [
    ([], "there is no row to ask about"),
    ([{"amount": 1}, {"amuont": 1}], "row 1: unknown column 'amuont': did you mean 'amount'?"),
    ([{"z": 1}], "row 0: unknown column 'z': this model takes amount, town, remark"),
    ([{"amount": float("inf")}], "row 0: amount: inf is no finite 32-bit number"),
    ([{"amount": True}], "row 0: amount: True is no number: write 1"),
    ([{"amount": "1,5"}], "row 0: amount: '1,5' is no number: write 1.5"),
    ([{"town": ["Ulm"]}], "row 0: town: a list is no single value"),
    ([{"town": np.array(["Ulm", "Bonn"])}], "row 0: town: a ndarray is no single value"),
    ([{"remark": "\ud800"}], "row 0: remark: 'utf-8' codec can't encode"),
    ({"amount": "x"}, "amount: 'x' is no number"),
    ([3], "row 0: a row is a dictionary {column: value}, not 3"),
    ("gone.csv", "gone.csv is no table that is there"),
]


@pytest.mark.parametrize(("what", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_cannot_be_asked_is_said_before_anything_is_sent(toy: Toy, what: Any, said: str) -> None:
    with Client(toy.endpoint.grpc, "toy") as client:
        client.describe()
        client._call = None  # type: ignore[method-assign]
        with pytest.raises(ValueError) as caught:
            client.predict(what)
    assert str(caught.value).startswith(said)


def test_what_only_the_server_finds_names_the_row(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind("number"), "raw", lambda value: value)
    given: list[dict[str, Any]] = [{"amount": 1.0} for _ in range(3 * MAX_BATCH + 1)]
    with Client(toy.endpoint.grpc, "toy") as client:
        for row in (MAX_BATCH + 3, 3 * MAX_BATCH):  # among others in a request, and alone
            wrong = [*given[:row], {"amount": float("inf")}, *given[row + 1 :]]
            with pytest.raises(RowError, match="inf is no finite") as caught:
                client.predict(wrong)
            assert (caught.value.row, caught.value.column) == (row, "amount")


def test_an_error_of_a_row_has_its_number_and_column(toy: Toy) -> None:
    with Client(toy.endpoint.grpc, "toy") as client:
        for rows_before in (0, 2 * MAX_BATCH + 3):
            for wrong in ({"amount": "x"}, {"amuont": 1}):
                with pytest.raises(RowError) as caught:
                    client.predict([*[{}] * rows_before, wrong])
                assert (caught.value.row, caught.value.column) == (rows_before, *wrong)


PICTURE = b"\x89PNG, or what a column of bytes may hold"


@pytest.mark.parametrize("form", ["bytes", "bytearray", "Path", "str", "file", "BytesIO", "BytesIO at its end"])
def test_bytes_are_taken_in_every_form(tmp_path: Path, form: str) -> None:
    described = Served(Schema((Column("photo", "image"),), Column("answer", "target_number")), MAX_BATCH, f"toy_{OLD}")
    path = tmp_path / "picture.png"
    path.write_bytes(PICTURE)
    written = io.BytesIO()
    written.write(PICTURE)
    with path.open("rb") as file:
        forms = {
            "bytes": PICTURE,
            "bytearray": bytearray(PICTURE),
            "Path": path,
            "str": str(path),
            "file": file,
            "BytesIO": io.BytesIO(PICTURE),
            "BytesIO at its end": written,
        }
        assert described.raw({"photo": forms[form]}) == {"photo": PICTURE}
        if form == "file":
            with pytest.raises(RowError, match="photo: an open file without a byte left"):
                described.raw({"photo": file})
            with path.open(encoding="latin-1") as text, pytest.raises(RowError, match="photo: a file open as text"):
                described.raw({"photo": text})


@EACH_WAY
def test_a_stream_is_answered_in_order_and_read_only_a_little_ahead(
    toy: Toy, protocol: str, asynchronous: bool
) -> None:
    read = 0
    given = rows(20 * MAX_BATCH + 1)

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for row in given:
            read += 1
            yield row

    async def source_async() -> AsyncIterator[dict[str, Any]]:
        for row in source():
            await asyncio.sleep(0)
            yield row

    found: list[dict[str, Any]] = []

    def take(answer: dict[str, Any]) -> None:
        found.append(answer)
        assert read <= len(found) + (IN_FLIGHT + 1) * MAX_BATCH

    async def ask() -> None:
        async with AsyncClient(toy.address(protocol), "toy") as client:
            async for answer in client.predict(source_async(), probabilities=True):
                take(answer)

    if asynchronous:
        asyncio.run(ask())
    else:
        with Client(toy.address(protocol), "toy") as client:
            answers = client.predict(source(), probabilities=True)
            assert read == 0
            for answer in answers:
                take(answer)
    served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in found])
    assert np.abs(served - toy.expected(given)).max() <= 1e-5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_fails_in_a_stream_comes_after_the_answers_before_it(toy: Toy, asynchronous: bool) -> None:
    good = 2 * MAX_BATCH + 3

    def wrong_row() -> Iterator[dict[str, Any]]:
        yield from [{"amount": 1}] * good
        yield {"amount": "x"}

    def wrong_source() -> Iterator[dict[str, Any]]:
        yield from [{"amount": 1}] * good
        raise OSError("the source is gone")

    async def count_async(rows: Iterator[dict[str, Any]], answers: list[Any]) -> None:
        async with AsyncClient(toy.endpoint.grpc, "toy") as client:
            async for answer in client.predict(rows):
                answers.append(answer)

    for source, error in ((wrong_row, RowError), (wrong_source, OSError)):
        answers: list[Any] = []
        with pytest.raises(error) as caught:
            if asynchronous:
                asyncio.run(count_async(source(), answers))
            else:
                for answer in Client(toy.endpoint.grpc, "toy").predict(source()):
                    answers.append(answer)
        assert len(answers) == good
        if isinstance(caught.value, RowError):
            assert (caught.value.row, caught.value.column) == (good, "amount")


def test_a_stream_that_is_left_leaves_nothing_under_way(toy: Toy) -> None:
    with Client(toy.endpoint.grpc, "toy") as client:
        answers = client.predict({"amount": number} for number in itertools.count())
        assert next(answers)["release"] == OLD
        answers.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 30
        while any(thread.name.startswith("millrace-client") for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_threads_share_a_client(toy: Toy, protocol: str) -> None:
    given = rows(64)
    expected = toy.expected(given)
    with Client(toy.address(protocol), "toy") as client, ThreadPoolExecutor(8) as pool:
        for _ in range(2):  # connections are used again
            answers = list(pool.map(lambda row: client.predict(row, probabilities=True), given, timeout=120))
            served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in answers])
            assert np.abs(served - expected).max() <= 1e-5


FORKED = """
import os, sys, traceback
from serving.client import Client
client = Client(sys.argv[1], "toy", retry_s=0)
client.predict({"town": "Ulm"})
child = os.fork()
if child == 0:
    try:
        os._exit(0 if client.predict({"town": "Ulm"})["release"] else 1)
    except RuntimeError as error:
        os._exit(7)
    finally:
        traceback.print_exc()
        os._exit(1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
client.predict({"town": "Ulm"})  # and the parent's connection is whole
sys.exit(code)
"""


@pytest.mark.parametrize(("protocol", "support", "code"), [("grpc", "0", 7), ("grpc", "1", 0), ("http", "0", 0)])
def test_a_forked_process_asks_or_is_refused_at_once(toy: Toy, protocol: str, support: str, code: int) -> None:
    surroundings = environment(ROOT) | {"GRPC_ENABLE_FORK_SUPPORT": support}
    command = [sys.executable, "-c", FORKED, toy.address(protocol)]
    ran = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=120)
    assert ran.returncode == code, ran.stderr


@EACH_WAY
def test_what_the_server_cannot_is_its_error(toy: Toy, protocol: str, asynchronous: bool) -> None:
    async def ask(model: str) -> None:
        if asynchronous:
            async with AsyncClient(toy.address(protocol), model) as client:
                await client.predict({})
        else:
            with Client(toy.address(protocol), model) as client:
                client.predict({})

    with pytest.raises(ServerError, match="unknown model: 'tyo'"):
        asyncio.run(ask("tyo"))
    with pytest.raises(ServerError, match="does not say what its columns are"):
        asyncio.run(ask(f"toy_{OLD}_encode"))


@EACH_WAY
def test_nobody_there_and_no_answer_in_time(protocol: str, asynchronous: bool) -> None:
    with socket.socket() as deaf, socket.socket() as silent:
        for each in (deaf, silent):
            each.bind(("127.0.0.1", 0))
        silent.listen()
        nobody, mute = (f"{protocol}://127.0.0.1:{each.getsockname()[1]}" for each in (deaf, silent))
        with pytest.raises(Unavailable, match=f"no model answers at {nobody} by "):
            predicted(nobody, {}, asynchronous, retry_s=0.2)
        with pytest.raises(TimeoutError, match=f"{mute} did not answer within 0.2 s"):
            predicted(mute, {}, asynchronous, timeout_s=0.2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> gateway.Files:
    return gateway.certificates(tmp_path_factory.mktemp("tls"))


def gated(toy: Toy, protocol: str, *arguments: Any, **options: Any) -> AbstractContextManager[str]:
    """A gateway with TLS before the server; HOST:PORT."""
    return {"grpc": gateway.grpcs, "http": gateway.https}[protocol](
        getattr(toy.endpoint, protocol), *arguments, **options
    )


@EACH_WAY
def test_tls_with_an_authority_of_ones_own_and_a_clients_certificate(
    toy: Toy, files: gateway.Files, protocol: str, asynchronous: bool
) -> None:
    row, expected = {"town": "Ulm"}, toy.expected([{"town": "Ulm"}])
    with gated(toy, protocol, files.server, client_ca=files.ca) as address:
        options: dict[str, Any] = {"ca": files.ca, "certificate": files.client}
        answer = predicted(f"{protocol}s://{address}", row, asynchronous, **options)
        assert list(answer["probabilities"].values()) == pytest.approx(expected[0].tolist(), abs=1e-5)
        for wrong in ({"certificate": files.client}, options | {"ca": files.other}):
            with pytest.raises(TlsError):
                predicted(f"{protocol}s://{address}", row, asynchronous, **wrong)
        with pytest.raises((TlsError, Unavailable), match="certificate"):  # gRPC hears no reason
            predicted(f"{protocol}s://{address}", row, asynchronous, ca=files.ca, retry_s=0)
    with gated(toy, protocol, files.elsewhere) as address, pytest.raises(TlsError):
        predicted(f"{protocol}s://{address}", row, asynchronous, ca=files.ca)
    with pytest.raises((TlsError, Unavailable), match="TLS"):
        predicted(f"{protocol}s://{getattr(toy.endpoint, protocol)}", row, asynchronous, ca=files.ca, retry_s=0)


@EACH_WAY
def test_a_token_and_headers_go_with_every_request(
    toy: Toy, files: gateway.Files, protocol: str, asynchronous: bool
) -> None:
    fetched = 0

    def token() -> str:
        nonlocal fetched
        fetched += 1
        return "secret"

    async def later() -> str:
        return token()

    row = {"town": "Ulm"}
    with gated(toy, protocol, files.server, token="secret") as address:
        ask = partial(predicted, f"{protocol}s://{address}", row, asynchronous, ca=files.ca)
        for given in ("secret", token, *([later] if asynchronous else [])):
            assert ask(token=given)["release"] == OLD
        assert fetched == (4 if asynchronous else 2)
        assert ask(headers={"Authorization": "Bearer secret"})["release"] == OLD
        for wrong in ({}, {"token": "guessed"}):
            with pytest.raises(AccessDenied):
                ask(**wrong)


WRONG_SETTINGS = [
    {"headers": {"a b": "c"}},
    {"headers": {"a": "b\r\nc: d"}},
    {"ca": "ca.pem"},
    {"certificate": ("server.pem", "ca.pem"), "server": "https://a"},
    {"ca": "server.key", "server": "https://a"},
    {"server": "https://user:word@a"},
    {"server": "grpc://a:1/b"},
]


@pytest.mark.parametrize("given", WRONG_SETTINGS, ids=str)
def test_wrong_settings_are_found_before_anything_is_sent(
    files: gateway.Files, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.ca.parent)
    with pytest.raises(ValueError):
        Client(**{"server": "a:1", "model": "toy", **given})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        Client("grpcs://a", "toy", ca="nowhere.pem")


@EACH_WAY
def test_a_server_that_comes_up_late_is_waited_for(toy: Toy, protocol: str, asynchronous: bool) -> None:
    """Its port refuses first, then cuts connections, then answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = probe.getsockname()
    host, port = getattr(toy.endpoint, protocol).split(":")

    def come_up() -> None:
        refused.wait(60)
        with socket.create_server(place) as late:
            late.accept()[0].close()
        with socket.create_server(place) as late:
            while not done.is_set():
                late.settimeout(0.1)
                with suppress(TimeoutError):
                    client, server = late.accept()[0], socket.create_connection((host, int(port)))
                    for one, other in ((client, server), (server, client)):
                        threading.Thread(target=pump, args=(one, other), daemon=True).start()

    refused, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=come_up)
    thread.start()
    try:
        with pytest.raises(Unavailable):
            predicted(f"{protocol}://127.0.0.1:{place[1]}", {}, asynchronous, retry_s=0)
        timer = threading.Timer(1.0, refused.set)  # some tries are refused
        timer.start()
        answer = predicted(f"{protocol}://127.0.0.1:{place[1]}", {"town": "Ulm"}, asynchronous)
        assert answer["release"] == OLD
    finally:
        refused.set()
        done.set()
        thread.join()


def pump(one: socket.socket, other: socket.socket) -> None:
    """All that comes from one goes to the other."""
    with suppress(OSError), one, other:
        while data := one.recv(1 << 16):
            other.sendall(data)


@pytest.mark.parametrize("server", ["nonsense", "127.0.0.1", "grpc://a:x", ""])
def test_an_address_that_is_none(server: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT, or begin it with"):
        Client(server, "toy")


class Failing:
    """Stands for the connection: fails as told, then answers with a configuration."""

    def __init__(self, toy: Toy, *statuses: str) -> None:
        self.left, self.calls, self.toy = list(statuses), 0, toy

    def config(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.left:
            raise InferenceServerException("as told", self.left.pop(0))
        with Client(self.toy.endpoint.grpc, "toy") as client:
            return client._connection(transport.connect).config("toy", {}, 10)


class Time:
    """A clock that a pause moves on."""

    def __init__(self) -> None:
        self.now, self.paused = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.now += seconds


def test_only_what_is_safe_is_sent_again_and_not_for_ever(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    for statuses, error, calls in [
        (["StatusCode.UNAVAILABLE"] * 3, None, 4),
        (["502", "503", "504", "429"], None, 5),
        (["StatusCode.UNAVAILABLE", "StatusCode.INVALID_ARGUMENT"], ValueError, 2),
        (["StatusCode.DEADLINE_EXCEEDED"], TimeoutError, 1),
        (["StatusCode.INTERNAL"], ServerError, 1),
        (["StatusCode.NOT_FOUND"], ServerError, 1),
        (["StatusCode.UNAUTHENTICATED"], AccessDenied, 1),
        (["403"], AccessDenied, 1),
    ]:
        for module in ("client", "errors"):
            monkeypatch.setattr(f"serving.client.{module}.time", Time())
        client = Client("127.0.0.1:1", "toy")
        client._connections[os.getpid()] = failing = Failing(toy, *statuses)  # type: ignore[assignment]
        if error is None:
            assert isinstance(client.describe(), Served)
        else:
            with pytest.raises(error):
                client.describe()
        assert failing.calls == calls


def test_the_pauses_bridge_a_restart_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time()
    monkeypatch.setattr("serving.client.errors.time", clock)
    monkeypatch.setattr("serving.client.client.time", clock)
    client = Client("127.0.0.1:1", "toy")
    client._connections[os.getpid()] = Failing(None, *["503"] * 1000)  # type: ignore[arg-type, assignment]
    with pytest.raises(Unavailable):
        client.describe()
    assert 10 < 19 - 1 <= clock.now <= 20
    for pause_s, longest_s in zip(clock.paused, [0.1, 0.2, 0.4, 0.8, *[1.0] * 100], strict=False):
        assert longest_s / 2 <= pause_s <= longest_s


@pytest.mark.parametrize("asynchronous", [False, True])
def test_another_release_answers_with_its_own_labels(toy: Toy, asynchronous: bool) -> None:
    async def ask() -> None:
        client: Any = (AsyncClient if asynchronous else Client)(toy.endpoint.grpc, "toy")
        for release in (OLD, NEW, OLD):
            toy.show(release)
            answer = client.predict({"town": "Ulm"})  # as the client knows the release before
            answer = await answer if asynchronous else answer
            assert answer["release"] == release
            assert answer["label"] == LABELS[release][toy.expected([{"town": "Ulm"}])[0].argmax()]
        closed = client.close()
        if asynchronous:
            await closed

    try:
        asyncio.run(ask())
    finally:
        toy.show(OLD)


def test_a_label_like_the_blank_id_stays_what_it_is(tmp_path: Path) -> None:
    described, folder = schema([manifest.BLANK, "other"]), tmp_path / "repository"
    golden = {"rows": {"amount": [1.0], "town": ["Ulm"], "remark": ["a house"]}, "sha256": ""}
    blank = Names("toy", manifest.BLANK)
    layout.write(folder, blank, described, b"", golden, Serving(MAX_BATCH, 1, 1), ROOT)
    made = manifest.describe(folder, "toy", {})
    rename(folder, blank, Names("toy", made.id))
    manifest.check(folder, made)
    config = text_format.Parse((folder / "toy" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    served = Served.of(json_format.MessageToDict(config, preserving_proto_field_name=True))
    assert served == Served(described.public(), MAX_BATCH, f"toy_{made.id}")


def test_the_client_loads_little() -> None:
    """Neither importing it nor describing a table brings in what trains."""
    modules = "serving.client", "stages.schema.kinds.category", "stages.schema.kinds.target_class"
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "lightning", "pandas", "pyarrow", "pydantic", "PIL", "rich", "typer", "tritonclient", "grpc"}
    assert heavy & set(ran.stdout.split()) == set()


def predict(toy: Toy, folder: Path, *arguments: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """`millrace predict --model toy` outside of any project; the answers it printed, and what it said beside."""
    command = [sys.executable, "-m", "flows.cli", "predict", "--server", toy.endpoint.grpc, "--model", "toy"]
    surroundings = environment(ROOT)
    ran = subprocess.run([*command, *arguments], cwd=folder, env=surroundings, capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


TABLE = [
    {"town": "Ulm", "amount": "3"},
    {"town": "?", "amount": ""},
    {"town": "Bonn", "amount": "many"},
    {"town": "unheard of", "amount": "NA"},
]


def test_tables_of_each_format_are_answered_alike(toy: Toy, tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "town", "amount"])
        writer.writeheader()
        writer.writerows({"id": i, **row} for i, row in enumerate(TABLE))
    stored = [{"town": "Ulm", "amount": 3.0}, {}, None, {"town": "unheard of"}]
    sent = [one if one is not None else {"town": "Bonn", "amount": "many"} for one in stored]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(one) + "\n" for one in sent))
    answers, said = predict(toy, tmp_path, "t.csv", "t.jsonl", "--probabilities", code=1)
    assert [answer["input"] for answer in answers[:3]] == ["t.csv row 2", "t.csv row 3", "t.csv row 5"]
    assert "error: t.csv row 4: amount: 'many' is no number" in said
    assert "error: t.jsonl row 3: amount: 'many' is no number" in said
    assert "t.csv lacks remark: missing in every row" in said
    expected = toy.expected([one for one in stored if one is not None] * 2)
    served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in answers])
    assert np.abs(served - expected).max() <= 1e-5


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_answers_are_written_row_by_row(toy: Toy, tmp_path: Path, ending: str) -> None:
    amounts = [*range(5 * MAX_BATCH), "x", *range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["amount", *map(str, amounts)]) + "\n")
    printed, _ = predict(toy, tmp_path, "t.csv", "--output", f"out.{ending}", code=1)
    assert printed == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out.{ending}", "t.csv"]
    if ending == "parquet":
        found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    elif ending == "csv":
        with (tmp_path / "out.csv").open(newline="") as file:
            found = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)]
    else:
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["input"] for row in found] == [f"t.csv row {number}" for number in range(2, len(amounts) + 2)]
    faulty = [row for row in found if row.get("error")]
    assert [(row["input"], row["error"]) for row in faulty] == [("t.csv row 42", "amount: 'x' is no number")]
    expected = toy.expected([{"amount": None if amount == "x" else float(amount)} for amount in amounts])
    for row, probabilities in zip(found, expected, strict=True):
        if not row.get("error"):
            assert row["release"] == OLD
            assert row["label"] == LABELS[OLD][probabilities.argmax()]
            assert abs(float(row["probability"]) - probabilities.max()) <= 1e-5


def test_a_project_says_how_its_tables_are_written(toy: Toy, fresh: Any) -> None:
    """No header row, another delimiter, words and marks of its own, with and without the target's column."""
    options = {"columns": ["town", "amount", "answer"], "delimiter": ";", "missing": ["-"], "replace": {"B.": "Bonn"}}
    options |= {"decimal": ",", "thousands": "."}
    features = {"town": "category", "amount": "number"}
    fresh.params(
        data={"format": "csv", "options": options},
        schema={"features": features, "target": {"answer": "class"}},
        gate={"slices": {}},
    )
    (fresh.folder / "with.csv").write_text("B.;1.003,5;yes\n-;-;no\n")
    (fresh.folder / "without.csv").write_text("B.;1003,5\n-;-\n")
    (fresh.folder / "headed.csv").write_text("amount;town\n1.003,5;B.\n-;-\n")
    ways = ["with.csv", "without.csv", "headed.csv", '{"town": "Bonn", "amount": 1003.5}', "{}"]
    said = fresh.millrace("predict", "--server", toy.endpoint.grpc, "--model", "toy", *ways)
    answers = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(answers) == 8
    probabilities = [answer["probability"] for answer in answers]
    assert probabilities[0::2] == pytest.approx([probabilities[0]] * 4, abs=1e-6)
    assert probabilities[1::2] == pytest.approx([probabilities[1]] * 4, abs=1e-6)
    assert abs(probabilities[0] - probabilities[1]) > 1e-5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{"], 1, "error: {: is no JSON"),
        (['{"ammount": 1}'], 1, "unknown column 'ammount': did you mean 'amount'?"),
        (["gone.csv"], 1, "gone.csv cannot be read: there is no such file"),
        (["misspelt.csv"], 1, "misspelt.csv has no column 'amount': rename 'ammount', if that is meant"),
        (["other.csv"], 1, "other.csv has none of the model's columns: amount, town, remark"),
        (["empty.csv"], 1, "empty.csv: there is no row to ask about"),
        (["broken.jsonl"], 1, "broken.jsonl cannot be read: its first row is no JSON"),
        (["3"], 1, 'this model takes 3 columns: give \'{"amount": ..., '),
        (["{}", "--output", "out.txt"], 2, "--output out.txt must end in .csv, .parquet, .jsonl"),
        (["{}", "--server", "nonsense"], 2, "'nonsense' is no address of a server"),
        (["{}", "--model", "tyo"], 1, "unknown model: 'tyo'"),
        (["{}", "--server", "127.0.0.1:9"], 1, "no model answers at 127.0.0.1:9 by gRPC"),
        (["{}", "--model", ""], 2, "name one with --model"),
    ],
)
def test_a_persons_mistake_is_a_line(toy: Toy, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "misspelt.csv").write_text("ammount,town\n1,Ulm\n")
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    (tmp_path / "empty.csv").write_text("amount,town,remark\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    answers, said = predict(toy, tmp_path, *arguments, code=code)
    assert answers == []
    assert words in said
    assert not (tmp_path / "out.txt").exists()
