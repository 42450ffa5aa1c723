"""A release on trial beside the live one: it is promoted or withdrawn by what it shows, and no caller is worse off."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from conftest import ROOT, Clone
from onnx import TensorProto, helper
from releases import Change, asked, live_answers, served, shifted, variant
from test_supervisor import HEALED_S, answering, serving, until

from serving import canary, ledger, wire
from serving.admin import administered
from serving.canary import Figures, Trial
from serving.client import Client
from serving.launcher import Endpoint, find_server
from serving.release import Candidate, Outcome, release, settle
from serving.repository import Names, golden
from serving.store import Store
from stages.errors import Misuse, Refused, UserError
from stages.kinds import target_class, target_number

TRIAL = Trial(
    share=0.5,
    shadow=False,
    requests=40,
    minutes=1,
    late_s=5,
    max_failures=0,
    max_latency_ratio=1000,
    max_disagreement=0.1,
)


@pytest.fixture(scope="module", autouse=True)
def server_or_skip() -> None:
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def near(candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A release that answers a little otherwise than the live one, with the same labels."""
    return shifted(candidates[0], tmp_path_factory.mktemp("near"), 2.1)


@pytest.fixture(scope="module")
def far(candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A release that calls everything a 3."""
    return shifted(candidates[0], tmp_path_factory.mktemp("far"), 100.0)


@contextlib.contextmanager
def asking(address: str, base: Candidate, raw: dict[str, list[Any]] | None = None) -> Iterator[list[Any]]:
    """Two clients that ask one row after the other while the block lasts: the releases that answered, and the faults."""
    schema, rows = golden(base.repository, base.names)
    row = raw or {column: values[:1] for column, values in rows.items()}
    stop, heard = threading.Event(), []

    def ask() -> None:
        with wire.connected(address) as client:
            while not stop.is_set():
                try:
                    answers = wire.ask(client, base.manifest.name, schema, row, timeout_s=10)
                    assert np.isfinite(answers["probabilities"]).all()
                    heard.append(answers["release"][0, 0].decode())
                except Exception as error:
                    heard.append(error)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        yield heard
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def tried(root: Path, store: Store, candidate: Candidate, **changes: Any) -> Outcome:
    return release(root, store, candidate, keep=3, trial=replace(TRIAL, **changes))


def whole(store: Store, live: Candidate, endpoint: Endpoint, gone: Candidate) -> None:
    """Fails unless the live release answers by itself, and nothing is left of the other."""
    assert store.current("digits") == live.manifest.id == asked(endpoint.grpc, live)[0]
    assert not list(store.repository.glob(f"*{gone.manifest.id}*")) and not store.routed()
    with administered(endpoint.grpc, endpoint.admin_key) as admin:
        assert not [model for model in admin.loaded() if gone.manifest.id in model]


def test_a_good_release_is_promoted_and_nobody_waits_in_vain(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint:
        with asking(endpoint.grpc, live) as heard:
            done = tried(after_two, store, near)
        assert done.release == near.manifest.id == live_answers(endpoint.grpc, [live, near]) and done.live
        with administered(endpoint.grpc, endpoint.admin_key) as admin:
            assert near.names.router not in admin.loaded()
    assert set(heard) == {live.manifest.id, near.manifest.id}
    assert not store.routed() and not store.faults(near.manifest.id)
    begun, promoted = ledger.lines(store.ledger)[-2:]
    assert (begun["event"], begun["release"], begun["share"]) == ("canary", near.manifest.id, 0.5)
    assert promoted["event"] == "released"
    assert promoted["canary"]["pairs"] >= 40 and promoted["canary"]["disagreements"] == 0
    assert promoted["canary"]["new_p50_s"] > 0
    assert "canary: " in done.told[0]
