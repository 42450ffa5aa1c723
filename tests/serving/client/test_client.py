"""Both clients against a real Triton with an untrained network: rows, data frames, errors and releases."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from serving.client import (
    AsyncClient,
    Client,
    RowError,
    Served,
)
from serving.triton import manifest
from serving.triton import repository as layout
from serving.triton.config import Serving
from serving.triton.names import Names, rename
from stages.schema import Column, Schema, kind
from tests.support.failing import failing
from tests.support.project import ROOT
from tests.support.toy_client import EACH_WAY, LABELS, MAX_BATCH, NEW, OLD, Toy, predicted, rows, schema


@EACH_WAY
def test_rows_are_answered_in_order_and_as_by_the_network_itself(toy: Toy, protocol: str, asynchronous: bool) -> None:
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
    assert len(ids) == len(given) and all(len(bytes.fromhex(id)) == 16 for id in ids)
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
        with pytest.raises(ValueError, match="two columns of the data frame have the same name"):
            client.predict(twice)


WRONG = [
    ([], "there is no row to predict"),
    ([{"amount": 1}, {"amuont": 1}], "row 1: unknown column 'amuont': did you mean 'amount'?"),
    ([{"z": 1}], "row 0: unknown column 'z': this model takes amount, town, remark"),
    ([{"amount": float("inf")}], "row 0: amount: inf is not a finite 32-bit number"),
    ([{"amount": True}], "row 0: amount: True is not a number: write 1"),
    ([{"amount": "1,5"}], "row 0: amount: '1,5' is not a number: write 1.5"),
    ([{"town": ["Ulm"]}], "row 0: town: a list is not a single value"),
    ([{"town": np.array(["Ulm", "Bonn"])}], "row 0: town: a ndarray is not a single value"),
    ([{"remark": "\ud800"}], "row 0: remark: 'utf-8' codec can't encode"),
    ({"amount": "x"}, "amount: 'x' is not a number"),
    ([3], "row 0: a row is a dictionary {column: value}, not 3"),
    (3, "give a row {column: value}, several rows"),
    ("gone.csv", "gone.csv is not an existing table"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG, ids=[message for _, message in WRONG])
def test_invalid_rows_are_rejected_before_anything_is_sent(toy: Toy, rows: Any, message: str) -> None:
    with Client(toy.endpoint.grpc, "toy") as client:
        client.describe()
        client._call = None  # type: ignore[method-assign]
        with pytest.raises(ValueError) as caught:
            client.predict(rows)
    assert str(caught.value).startswith(message)


def test_an_error_found_by_the_server_names_the_row(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind("number"), "raw", lambda value: value)
    given: list[dict[str, Any]] = [{"amount": 1.0} for _ in range(3 * MAX_BATCH + 1)]
    with Client(toy.endpoint.grpc, "toy") as client:
        for row in (MAX_BATCH + 3, 3 * MAX_BATCH):  # in a request with others, and in one of its own
            wrong = [*given[:row], {"amount": float("inf")}, *given[row + 1 :]]
            with pytest.raises(RowError, match="inf is not a finite") as caught:
                client.predict(wrong)
            assert (caught.value.row, caught.value.column) == (row, "amount")


def test_an_error_of_a_row_has_its_number_and_column(toy: Toy) -> None:
    with Client(toy.endpoint.grpc, "toy") as client:
        for rows_before in (0, 2 * MAX_BATCH + 3):
            for wrong in ({"amount": "x"}, {"amuont": 1}):
                with pytest.raises(RowError) as caught:
                    client.predict([*[{}] * rows_before, wrong])
                assert (caught.value.row, caught.value.column) == (rows_before, *wrong)


PICTURE = b"\x89PNG, or any other bytes"


@pytest.mark.parametrize("form", ["bytes", "bytearray", "Path", "str", "file", "BytesIO", "BytesIO at its end"])
def test_bytes_are_accepted_in_every_form(tmp_path: Path, form: str) -> None:
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
            with failing(RowError, "row-invalid-value", "photo"):
                described.raw({"photo": file})
            with (
                path.open(encoding="latin-1") as text,
                pytest.raises(RowError, match="the file is open as text"),
            ):
                described.raw({"photo": text})


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_new_release_answers_with_its_own_classes(toy: Toy, asynchronous: bool) -> None:
    async def ask() -> None:
        client: Any = (AsyncClient if asynchronous else Client)(toy.endpoint.grpc, "toy")
        for release in (OLD, NEW, OLD):
            toy.show(release)
            answer = client.predict({"town": "Ulm"})  # the client still has the description of the release before
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


def test_a_class_named_like_the_blank_id_is_not_replaced(tmp_path: Path) -> None:
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


def test_the_client_imports_no_heavy_module() -> None:
    """Neither the client nor the kinds import the libraries for training."""
    modules = "serving.client", "stages.schema.kinds.category", "stages.schema.kinds.target_class"
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "lightning", "pandas", "pyarrow", "pydantic", "PIL", "rich", "typer", "tritonclient", "grpc"}
    assert heavy & set(result.stdout.split()) == set()
