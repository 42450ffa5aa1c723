"""A private Triton server on a verified copy of an exported model, and clients that send it raw values."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.triton import manifest as manifests
from serving.triton.launcher import Endpoint, inference_count, running
from serving.triton.names import Names
from serving.triton.wire import ask, connected
from stages.schema import Schema
from stages.tables import table

Raw = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Sandbox:
    """A running server with one release."""

    endpoint: Endpoint
    names: Names
    schema: Schema

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """Yield a gRPC client. Each thread needs its own."""
        with connected(self.endpoint.grpc) as client:
            yield client

    def ask(self, client: Any, raw: Raw, model: str = "") -> dict[str, np.ndarray]:
        """Send raw values {column: [n]} in one request.

        Returns every output [n, *shape], and `release` and `answer_id` [n].
        """
        return ask(client, model or self.names.public, self.schema, raw)

    def ask_all(self, pieces: Iterable[Raw], rows: int, model: str = "") -> dict[str, np.ndarray]:
        """Send one request of at most `rows` after another, so that the server computes each batch as it was sent."""
        with self.client() as client:
            return joined([self.ask(client, batch, model) for raw in pieces for batch in batches(raw, rows)])

    def count(self, model: str) -> int:
        """Return how many samples a model has answered, as the server counts them."""
        return inference_count(self.endpoint, model)


def raw_rows(schema: Schema, source: Path, rows: np.ndarray, whole: bool = False) -> Iterator[Raw]:
    """Yield the raw feature values at `rows` of the table as {column: [n]}: in pieces, or as one with `whole`."""
    columns = {column.name: table.Values(source, column.name, rows) for column in schema.features}
    if whole:
        yield {name: [value for chunk in values for value in chunk] for name, values in columns.items()}
        return
    for chunks in zip(*columns.values(), strict=True):
        yield dict(zip(columns, chunks, strict=True))


def size(raw: Raw) -> int:
    """Return the number of rows, which all columns share."""
    return len(next(iter(raw.values())))


def batches(raw: Raw, rows: int) -> Iterator[Raw]:
    """Cut {column: [n]} into pieces of at most `rows`."""
    for first in range(0, size(raw), rows):
        yield {name: values[first : first + rows] for name, values in raw.items()}


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate the outputs [n, *shape] of several batches."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@contextlib.contextmanager
def sandbox(
    repository: Path,
    manifest: manifests.Manifest,
    schema: Schema,
    add: Callable[[Path, Names], Sequence[str]] = lambda copy, names: (),
) -> Iterator[Sandbox]:
    """Copy the repository, check every byte of the copy against the manifest, and serve it while the block lasts.

    `add` may put more models into the copy after the check; it returns their names, and they are served too.

    Raises:
        UserError: the bytes are not the manifest's, there is no server, or a model does not load.
    """
    names = Names(manifest.name, manifest.id)
    with tempfile.TemporaryDirectory(prefix="millrace-sandbox-") as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(repository, copy)
        manifests.check(copy, manifest, repository)
        models = [names.public, names.candidate, *add(copy, names)]
        with running(copy, models, drain_s=0) as endpoint:
            yield Sandbox(endpoint, names, schema)
