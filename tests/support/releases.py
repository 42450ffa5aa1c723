"""Releases for tests: variants of one exported model, and a server for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from serving.releases.candidate import Candidate
from serving.releases.store import Store
from serving.releases.trial import Trial
from serving.triton import manifest as manifests
from serving.triton import wire
from serving.triton.admin import announcement
from serving.triton.launcher import Endpoint, running
from serving.triton.names import Names, rename
from serving.triton.repository import golden

Change = Callable[[Path, Names], None]  # of a repository that bears the BLANK id


def variant(base: Candidate, folder: Path, change: Change, **verdict: Any) -> Candidate:
    """Make another release from `base` by a change to its files, with its own manifest and verdict."""
    repository = folder / "repository"
    shutil.copytree(base.repository, repository)
    blank = Names(base.manifest.name, manifests.BLANK)
    rename(repository, base.names, blank)
    change(repository, blank)
    made = manifests.describe(repository, blank.public, base.manifest.sources)
    rename(repository, blank, Names(blank.public, made.id))
    judged = {**base.verdict, "release": made.id, **verdict}
    return replace(base, repository=repository, manifest=made, verdict=judged)


def shifted(base: Candidate, folder: Path, by: float) -> Candidate:
    """Make a release with one changed bias, and so with clearly different predictions."""
    model = b""

    def change(repository: Path, names: Names) -> None:
        nonlocal model
        path = repository / names.network / "1" / "model.onnx"
        network = onnx.load(path)
        bias = next(tensor for tensor in network.graph.initializer if list(tensor.dims) == [10])
        values = numpy_helper.to_array(bias).copy()
        values[3] += by
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
        model = network.SerializeToString(deterministic=True)
        path.write_bytes(model)

    made = variant(base, folder, change)
    schema, rows = golden(made.repository, made.names)
    session = onnxruntime.InferenceSession(model)
    answers = session.run(None, schema.encode(rows))
    return replace(made, golden=dict(zip(schema.outputs(), (array.tolist() for array in answers), strict=True)))


def flipped(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def golden_answers(address: str, base: Candidate, model: str = "") -> tuple[str, np.ndarray]:
    """Return the release that answers the golden rows, and its probabilities [n, C]."""
    schema, rows = golden(base.repository, base.names)
    with wire.connected(address) as client:
        answers = wire.ask(client, model or base.manifest.name, schema, rows, timeout_s=10)
    (release,) = set(answers["release"].tolist())
    return release, answers["probabilities"]


def live_answers(address: str, candidates: list[Candidate]) -> str:
    """Return the release that answers the golden rows, and check its probabilities."""
    release, answers = golden_answers(address, candidates[0])
    expected = {
        candidate.manifest.id: np.array(candidate.golden["probabilities"], np.float32) for candidate in candidates
    }
    np.testing.assert_allclose(answers, expected[release], atol=1e-5)
    return release


@contextlib.contextmanager
def served(store: Store) -> Iterator[Endpoint]:
    """A server on the store without a supervisor."""
    models = [model for name in store.names() for model in (name, f"{name}_{store.current(name)}")]
    with running(store.repository, models, admin_key=store.key, drain_s=0) as endpoint:
        store.announce(announcement(endpoint, os.getpid()))
        yield endpoint
        store.announce(None)


def relabelled(labels: Callable[[list[str]], list[str]]) -> Callable[[Path, Names], None]:
    def change(repository: Path, names: Names) -> None:
        path = repository / names.network / "1" / "probabilities.labels.txt"
        path.write_text("\n".join(labels(path.read_text().splitlines())) + "\n")

    return change


def make_champion(root: Path, candidate: Candidate) -> None:
    """Write the champion as `git pull` and `dvc pull` would."""
    champion = root / "champion"
    shutil.rmtree(champion / "repository")
    shutil.copytree(candidate.repository, champion / "repository")
    (champion / "manifest.json").write_text(candidate.manifest.text)
    (champion / "verdict.json").write_text(json.dumps(dict(candidate.verdict)))
    (champion / "golden.json").write_text(json.dumps(dict(candidate.golden)))
    (champion / "statistics.json").write_text(candidate.statistics)


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
