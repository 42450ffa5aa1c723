"""Prove a release: a running server must give exactly its golden answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from serving.releases.store import Store
from serving.triton import parity, wire
from serving.triton.admin import Admin, administered, is_server
from serving.triton.names import Names
from serving.triton.repository import golden
from stages.core.errors import UserError


def announced_server(store: Store) -> dict[str, Any] | None:
    """Return the announcement of the server on this store; None where that server does not run."""
    server = store.announced()
    return server if server and is_server(server["http"], server["identity"]) else None


@contextlib.contextmanager
def running_server(store: Store) -> Iterator[Admin | None]:
    """Yield the administration of the server on this store; None where none runs."""
    server = announced_server(store)
    if server is None:
        yield None
        return
    with administered(server["grpc"], store.key) as admin:
        yield admin


def prove(
    admin: Admin, store: Store, names: Names, model: str, timeout_s: float | None = None, request_id: str = wire.PROBE
) -> None:
    """Compare a model's answers to the golden rows with the golden answers of a release.

    Raises:
        UserError: the model does not answer, answers differently, or answers as another release.
    """
    schema, rows = golden(store.repository, names)
    answers = admin.answers(model, schema, rows, timeout_s or admin.timeout_s, request_id)
    releases = set(answers["release"].tolist())
    if releases != {names.release}:
        raise UserError(
            "release-other-answers",
            f"{model} answers as release {', '.join(sorted(releases))} and not as {names.release}",
        )
    differs, largest = parity.differ(answers, golden_answers(store, names), schema.outputs())
    if differs:
        raise UserError(
            "release-wrong-answers", f"{model} does not give its golden answers: they differ by {largest:.1e}"
        )


def golden_answers(store: Store, names: Names) -> dict[str, np.ndarray]:
    """Read the golden answers of a release, {output: [n, *shape]}.

    Raises:
        UserError: its record is damaged.
    """
    return {name: np.array(values, np.float32) for name, values in store.read(names.release, "golden.json").items()}
