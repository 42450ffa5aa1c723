"""A project with releases of an earlier version, whose answers give `release` as text and have no `answer_id`.

`data/old_release.tar.xz` is made by commit 7bb0dca: `millrace run --preset diabetes`, `millrace release`, then both
again with `seed: 1, epochs: 1, learning_rate: 10` and `--override`. Without what git brings back, without the
first release's files in DVC's cache, and without the code that no stage reads.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc

from serving.client import Client
from serving.releases import canary, git_history
from serving.releases.candidate import Candidate, from_champion
from serving.releases.health import Miss
from serving.releases.ledger import Journal
from serving.releases.release import release
from serving.releases.rollback import rollback
from serving.releases.store import Store
from serving.releases.supervisor import Watch
from serving.triton import manifest as manifests
from serving.triton import repository as layout
from serving.triton import wire
from serving.triton.admin import administered
from serving.triton.config import Serving
from serving.triton.launcher import Endpoint
from serving.triton.names import Names, rename
from serving.triton.repository import golden
from stages import challenge
from stages.core.errors import Misuse, Refused
from stages.schema import Schema
from tests.support.project import ROOT, Clone
from tests.support.releases import TRIAL, served

pytestmark = pytest.mark.usefixtures("a_server")

NAME = "diabetes"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old project with the current code."""
    root = tmp_path_factory.mktemp("old") / "project"
    with tarfile.open(ROOT / "tests/support/data/old_release.tar.xz") as archive:
        archive.extractall(root, filter="fully_trusted")
    subprocess.run(["git", "checkout", "--quiet", "HEAD", "--", "."], cwd=root, check=True)
    for name in ("serving", "stages", "flows"):
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", root)
    return root


@pytest.fixture
def old(released: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(released, tmp_path / "old", symlinks=True)


@pytest.fixture(scope="module")
def champion(released: Path) -> Candidate:
    """The old project's champion, which was released in spite of its verdict."""
    return from_champion(released)


@pytest.fixture(scope="module")
def new(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """The same network, exported by the current code."""
    store = Store(released / "live")
    names = Names(NAME, str(store.current(NAME)))
    schema, encode = layout.schema_of(store.repository, names), store.repository / names.encode / "1"
    network = (store.repository / names.network / "1" / "model.onnx").read_bytes()
    repository, blank = tmp_path_factory.mktemp("new") / "repository", Names(NAME, manifests.BLANK)
    rows = json.loads((encode / "golden.json").read_text())
    layout.write(repository, blank, schema, network, rows, Serving(64, 1, 1), ROOT)
    made = manifests.describe(repository, NAME, store.manifest(names.release).sources)
    rename(repository, blank, Names(NAME, made.id))
    verdict = {"release": made.id, "verdict": "pass", "criteria": []}
    return Candidate(repository, made, verdict, store.read(names.release, "golden.json"))


@contextlib.contextmanager
def asking(root: Path) -> Iterator[tuple[Store, Endpoint, Any]]:
    """A server on the old releases, and a stock client."""
    store = Store(root / "live")
    with served(store) as endpoint, wire.connected(endpoint.grpc) as bare:
        yield store, endpoint, bare


def answer(bare: Any, store: Store, count: int = 1, model: str = NAME) -> Any:
    """Return a stock client's answer to the golden rows, with all outputs."""
    schema, rows = golden(store.repository, Names(NAME, str(store.current(NAME))))
    some = {column: values[:count] for column, values in rows.items()}
    return bare.infer(model, wire.inputs(grpc, schema.inputs(), some))


def text_of(result: Any) -> str:
    """Return the release of an answer in the old form."""
    assert result.as_numpy("answer_id") is None
    return result.as_numpy("release")[0, 0].decode()


def codes_of(result: Any) -> str:
    """Return the release of an answer in the current form."""
    assert result.as_numpy("answer_id").shape[1:] == (16,) and result.as_numpy("answer_id").dtype == np.uint8
    return bytes(result.as_numpy("release")[0]).decode()


def heal(root: Path, store: Store, endpoint: Endpoint) -> str:
    """Replace the workers of the live release. Returns the reason why nothing answers afterwards, if nothing does."""
    with administered(endpoint.grpc, endpoint.admin_key) as admin:
        watch = Watch(root, store, endpoint, admin, Journal(store.ledger, print), print, timeout_s=1.0)
        return watch.heal(NAME, Miss("a test"))


def predicted(endpoint: Endpoint, store: Store) -> dict[str, Any]:
    _, rows = golden(store.repository, Names(NAME, str(store.current(NAME))))
    with Client(endpoint.grpc, NAME) as client:
        return client.predict({column: values[0] for column, values in rows.items()})


def test_an_old_release_is_served_traced_healed_and_rolled_back_to(old):
    second, first = Store(old / "live").kept(NAME)
    trace = Clone(old).millrace("trace", second)
    sound, links = map(int, re.search(r"(\d+) of (\d+) links hold", trace).groups())
    assert sound == links > 20, trace
    with asking(old) as (store, endpoint, bare):
        assert text_of(answer(bare, store)) == second == predicted(endpoint, store)["release"]
        probe = ROOT / "serving/triton/runtime/probe.py"
        subprocess.run([sys.executable, "-I", probe, NAME, store.repository, endpoint.http], check=True)
        assert "answer_id" not in predicted(endpoint, store)
        assert heal(old, store, endpoint) == ""
        assert text_of(answer(bare, store)) == second
        assert rollback(old, store, NAME, None).release == first
        assert text_of(answer(bare, store)) == first == predicted(endpoint, store)["release"]


def test_the_next_release_breaks_no_caller_and_can_be_rolled_back(old, new):
    with asking(old) as (store, endpoint, bare):
        second = store.current(NAME)
        announced = store.announced()
        store.announce({name: value for name, value in announced.items() if name != "identifiers"})
        with pytest.raises(Misuse, match="of an earlier version"):
            release(old, store, new, keep=3)
        store.announce(announced)
        done = release(old, store, new, keep=3)
        assert done.live and any("'answer_id' is new" in line for line in done.notices)
        assert codes_of(answer(bare, store)) == new.manifest.id
        given = predicted(endpoint, store)
        assert given["release"] == new.manifest.id and len(bytes.fromhex(given["answer_id"])) == 16
        assert predicted(endpoint, store)["answer_id"] != given["answer_id"]
        assert heal(old, store, endpoint) == ""  # by way of the release before
        assert codes_of(answer(bare, store)) == new.manifest.id
        assert rollback(old, store, NAME, None).release == second
        assert text_of(answer(bare, store)) == second
        assert rollback(old, store, NAME, new.manifest.id).release == new.manifest.id


def test_an_old_champion_is_released_on_another_host_and_breaks_callers_of_new_ones(old, champion, new):
    shutil.rmtree(old / "live")
    store = Store(old / "live")
    assert release(old, store, champion, keep=3, override="as ever").release == store.current(NAME)
    assert release(old, store, new, keep=3).release == store.current(NAME)
    with pytest.raises(Refused, match="'answer_id' is gone"):
        release(old, store, champion, keep=3, override="as ever")


def both(bare: Any, store: Store, read: Any, times: int = 8) -> set[str]:
    """Return the releases that answer during a canary in the same form, and check that no output ends the server."""
    metadata = bare.get_model_metadata(NAME)
    for output in metadata.outputs:
        if output.datatype != "BYTES":
            schema, rows = golden(store.repository, Names(NAME, str(store.current(NAME))))
            sent = wire.inputs(grpc, schema.inputs(), {column: values[:1] for column, values in rows.items()})
            for _ in range(2):
                bare.infer(NAME, sent, outputs=[grpc.InferRequestedOutput(output.name, class_count=3)])
    answers = [answer(bare, store, count) for count in (1, 3) for _ in range(times)]
    for found in answers:
        for output in metadata.outputs:
            assert found.get_output(output.name).datatype == output.datatype
            assert list(found.get_output(output.name).shape[1:]) == list(output.shape[1:])
    if "answer_id" in {output.name for output in metadata.outputs}:
        ids = [row.tobytes() for found in answers for row in found.as_numpy("answer_id")]
        assert len(set(ids)) == len(ids)
    return {read(found) for found in answers}


@contextlib.contextmanager
def tried(root: Path, store: Store, endpoint: Endpoint, candidate: Candidate) -> Iterator[None]:
    """A canary without its command."""
    live = Names(NAME, str(store.current(NAME)))
    with store.writing("a canary"), administered(endpoint.grpc, endpoint.admin_key) as admin:
        store.add(candidate.repository, candidate.manifest, {"golden.json": json.dumps(dict(candidate.golden))})
        canary.require(store, admin, live.release, candidate.names, candidate.repository)
        admin.load(candidate.names.candidate)
        canary.begin(store, admin, live, candidate.names, replace(TRIAL, share=0.5))
        yield
        canary.end(store, admin, candidate.names)


def test_a_canary_answers_in_the_form_of_the_live_release(old, champion, new):
    with asking(old) as (store, endpoint, bare):
        second = store.current(NAME)
        with tried(old, store, endpoint, new):
            assert both(bare, store, text_of) == {second, new.manifest.id}
            figures = canary.figures(store, new.names)
            assert figures.failures == figures.disagreements == 0 < figures.pairs
        assert release(old, store, new, keep=3).live
        with tried(old, store, endpoint, champion):
            assert both(bare, store, codes_of) == {second, new.manifest.id}
            figures = canary.figures(store, champion.names)
            assert figures.failures == figures.disagreements == 0 < figures.pairs


def test_an_old_champion_is_challenged(old, new):
    state = git_history.head(old)
    source = state.object(state.outputs[state.paths["table"]])
    schema = Schema.load(state.object(state.outputs[state.paths["schema"]]))
    standing, answers = challenge.ask(old / "champion" / "manifest.json", new.manifest, schema, source, np.arange(20))
    assert standing.state == "answers" and set(answers) == set(schema.outputs())
