"""A release proves itself: a running server gives its golden answers, and none other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from serving.releases.store import Store
from serving.triton import parity, wire
from serving.triton.admin import Admin, administered, is_server
from serving.triton.names import Names
from serving.triton.repository import golden
from stages.core.errors import UserError


@contextlib.contextmanager
def running_server(store: Store) -> Iterator[Admin | None]:
    """The server that answers from this store; None where there is none."""
    announced = store.announced()
    if announced is None or not is_server(announced["http"], announced["identity"]):
        yield None
        return
    with administered(announced["grpc"], store.key) as admin:
        yield admin


def prove(
    admin: Admin, store: Store, names: Names, model: str, timeout_s: float | None = None, request_id: str = wire.PROBE
) -> None:
    """Hold a model's answers to the golden rows against those that the release is known by.

    Raises:
        UserError: it does not answer, otherwise than it should, or as another release.
    """
    schema, rows = golden(store.repository, names)
    answers = admin.answers(model, schema, rows, timeout_s or admin.timeout_s, request_id)
    found = set(answers["release"].tolist())
    if found != {names.release}:
        raise UserError(f"{model} answers as release {', '.join(sorted(found))} and not as {names.release}")
    other, worst = parity.differ(answers, known(store, names), schema.outputs())
    if other:
        raise UserError(f"{model} does not give its golden answers: they differ by {worst:.1e}")


def known(store: Store, names: Names) -> dict[str, np.ndarray]:
    """The golden answers of a release, {output: [n, *shape]}.

    Raises:
        UserError: its record is damaged.
    """
    return {name: np.array(values, np.float32) for name, values in store.read(names.release, "golden.json").items()}
