"""A small model with two releases on a real Triton, and both clients to query it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from serving.client import (
    AsyncClient,
    Client,
)
from serving.triton import repository as layout
from serving.triton.config import Serving
from serving.triton.launcher import Endpoint, running
from serving.triton.names import Names
from stages.schema import Column, Schema, kind
from tests.support.project import ROOT

OLD, NEW = "00000000000a", "00000000000b"
TOWNS = ["Ulm", "Bonn", "Ulm, too", "000000000000"]
LABELS = {OLD: ["no", "perhaps", "yes"], NEW: ["nein", "ja", "vielleicht"]}
MAX_BATCH = 8


class Toy(NamedTuple):
    """Two releases of one model with the same network and other class names. The first one is public at the start."""

    endpoint: Endpoint
    config: Path  # of the public model
    texts: dict[str, str]  # its content, by release
    schema: Schema
    network: Any

    def address(self, protocol: str) -> str:
        return f"{protocol}://{getattr(self.endpoint, protocol)}"

    def expected(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Return the probabilities [n, 3] of rows as the table stores them, computed by the network in this process."""
        import torch

        raw = {column.name: [row.get(column.name) for row in rows] for column in self.schema.features}
        with torch.no_grad():
            blocks = [torch.from_numpy(array) for array in self.schema.encode(raw).values()]
            return self.network.predict(self.network(blocks))["probabilities"].numpy()

    def show(self, release: str) -> None:
        """Point the public name at a release."""
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
    """Three kinds of columns, fitted on a few values."""
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
    """Rows with values that are missing, left out, or not in the training data."""
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
    """Call `predict` of either client."""
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
