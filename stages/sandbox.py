"""A private Triton on a verified copy of an exported model, and clients that send it raw values."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.launcher import Endpoint, inference_count, running
from serving.repository import Names
from serving.wire import ask, connected
from stages import manifest as manifests
from stages.schema import Schema


@dataclass(frozen=True)
class Sandbox:
    """A running server with one release on it."""

    endpoint: Endpoint
    names: Names
    schema: Schema

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A gRPC client, closed with the block. One for each thread."""
        with connected(self.endpoint.grpc) as client:
            yield client

    def ask(self, client: Any, raw: Mapping[str, Sequence[Any]], model: str = "") -> dict[str, np.ndarray]:
        """Raw values {column: [n]} -> every output [n, *shape], `release` among them. One request."""
        return ask(client, model or self.names.public, self.schema, raw)

    def count(self, model: str) -> int:
        """How many samples the server says this model has answered."""
        return inference_count(self.endpoint, model)


@contextlib.contextmanager
def sandbox(repository: Path, manifest: manifests.Manifest, schema: Schema) -> Iterator[Sandbox]:
    """Copy the repository, check every byte of the copy against the manifest, and serve it while the block lasts.

    Raises:
        UserError: other bytes than the manifest's, no server, or a model that does not load.
    """
    names = Names(manifest.name, manifest.id)
    with tempfile.TemporaryDirectory(prefix="millrace-sandbox-") as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(repository, copy)
        manifests.check(copy, manifest)
        with running(copy, [names.public, names.candidate], drain_s=0) as endpoint:
            yield Sandbox(endpoint, names, schema)
