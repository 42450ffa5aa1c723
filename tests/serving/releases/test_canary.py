"""Trials: a new release gets a share of the requests and is promoted or withdrawn, and callers notice nothing."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tritonclient import grpc

from flows import cli
from serving.client import Client
from serving.releases import canary, ledger
from serving.releases import trial as trials
from serving.releases.candidate import Candidate
from serving.releases.release import release
from serving.releases.store import Store
from serving.releases.switch import Outcome, settle
from serving.triton import wire
from serving.triton.admin import administered
from serving.triton.launcher import Endpoint
from serving.triton.names import Names
from serving.triton.repository import golden
from stages.core.errors import Misuse, Refused
from tests.support.project import Clone, until
from tests.support.releases import (
    TRIAL,
    Change,
    golden_answers,
    live_answers,
    make_champion,
    relabelled,
    served,
    shifted,
    variant,
)
from tests.support.supervised import answering, serving

pytestmark = pytest.mark.usefixtures("a_server")


def _picture() -> bytes:
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    return content.getvalue()


BLACK = _picture()


@pytest.fixture(scope="module")
def near(candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A release with slightly different probabilities and the same classes as the live one."""
    return shifted(candidates[0], tmp_path_factory.mktemp("near"), 2.1)


@pytest.fixture(scope="module")
def far(candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A release that predicts 3 for every picture."""
    return shifted(candidates[0], tmp_path_factory.mktemp("far"), 100.0)


@contextlib.contextmanager
def asking(address: str, base: Candidate, raw: dict[str, list[Any]] | None = None) -> Iterator[list[Any]]:
    """Two clients send a row again and again. Yields the releases that answered, and the errors."""
    schema, rows = golden(base.repository, base.names)
    row = raw or {column: values[:1] for column, values in rows.items()}
    stop, answered = threading.Event(), []

    def ask() -> None:
        with wire.connected(address) as client:
            while not stop.is_set():
                try:
                    answers = wire.ask(client, base.manifest.name, schema, row, timeout_s=10)
                    assert np.isfinite(answers["probabilities"]).all()
                    answered.append(str(answers["release"][0]))
                except Exception as error:
                    answered.append(error)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        yield answered
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def tried(root: Path, store: Store, candidate: Candidate, **changes: Any) -> Outcome:
    return release(root, store, candidate, keep=3, trial=replace(TRIAL, **changes))


@contextlib.contextmanager
def canary_of(root: Path, store: Store, endpoint: Endpoint, candidate: Candidate, **changes: Any) -> Iterator[None]:
    """A canary without its command; at the end of the block it is removed as after a kill."""
    live = Names("digits", store.current("digits"))
    with store.writing("a canary"), administered(endpoint.grpc, endpoint.admin_key) as admin:
        store.add(candidate.repository, candidate.manifest, {"golden.json": json.dumps(dict(candidate.golden))})
        admin.load(candidate.names.candidate)
        canary.begin(store, admin, live, candidate.names, replace(TRIAL, **changes))
        yield
        settle(root, store, admin)


@contextlib.contextmanager
def command(root: Path, store: Store, candidate: Candidate) -> Iterator[subprocess.Popen[str]]:
    """Run `millrace release --from-champion --canary`, and begin the block when the new release gets requests."""
    options = ("--from-champion", "--canary", "50%", "--requests", "1000000")
    process = Clone(root).start(sys.executable, "-m", "flows.cli", "release", *options)
    try:
        until(
            lambda: (
                store.diverted(candidate.names)
                and (canary.figures(store, candidate.names) or trials.Figures()).pairs > 0
            )
        )
        yield process
    finally:
        process.kill()
        process.communicate()


def assert_only_live(store: Store, live: Candidate, endpoint: Endpoint, gone: Candidate) -> None:
    """Fail unless the live release answers, and nothing is left of the other one."""
    assert store.current("digits") == live.manifest.id == golden_answers(endpoint.grpc, live)[0]
    assert not list(store.repository.glob(f"*{gone.manifest.id}*")) and not store.routed()
    with administered(endpoint.grpc, endpoint.admin_key) as admin:
        assert not [model for model in admin.loaded() if gone.manifest.id in model]


def test_a_good_release_is_promoted_and_every_request_is_answered(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint:
        with asking(endpoint.grpc, live) as answered:
            done = tried(after_two, store, near)
        assert done.release == near.manifest.id == live_answers(endpoint.grpc, [live, near]) and done.live
        with administered(endpoint.grpc, endpoint.admin_key) as admin:
            assert near.names.router not in admin.loaded()
    assert set(answered) == {live.manifest.id, near.manifest.id}
    assert not store.routed() and not store.faults(near.manifest.id)
    started, promoted = ledger.lines(store.ledger)[-2:]
    assert (started["event"], started["release"], started["share"]) == (
        "canary",
        near.manifest.id,
        0.5,
    )
    assert promoted["event"] == "released"
    assert promoted["canary"]["pairs"] >= 40 and promoted["canary"]["disagreements"] == 0
    assert promoted["canary"]["new_p50_s"] > 0
    assert "canary: " in done.notices[0]


def test_exactly_the_share_is_tried_and_answers_keep_their_form(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint, canary_of(after_two, store, endpoint, near, share=0.3):
        releases = [golden_answers(endpoint.grpc, live)[0] for _ in range(40)]
        assert releases.count(near.manifest.id) == 12 == canary.figures(store, near.names).pairs
        assert store.current("digits") == live.manifest.id
        assert "0.3 of the requests" in Clone(after_two).millrace("status")
        schema, rows = golden(live.repository, live.names)
        with grpc.InferenceServerClient(endpoint.grpc) as bare:
            (picture,) = wire.inputs(grpc, schema.inputs(), {"image": rows["image"][:1]})
            wanted = [grpc.InferRequestedOutput("probabilities", class_count=1)]
            for _ in range(4):
                (best,) = bare.infer("digits", [picture], outputs=wanted).as_numpy("probabilities")[0]
                assert best.decode().split(":")[1:] == ["0", "0"]
            (broken,) = wire.inputs(grpc, schema.inputs(), {"image": [b"no picture"]})
            faults = []
            with asking(endpoint.grpc, live) as answered:  # these requests must not fail
                for model in ("digits", live.names.candidate):
                    for _ in range(20):
                        with pytest.raises(grpc.InferenceServerException) as fault:
                            bare.infer(model, [broken])
                        faults.append((fault.value.status(), fault.value.message().replace(model, "MODEL")))
            assert set(answered) == {live.manifest.id, near.manifest.id}
            assert len(set(faults)) == 1 and "INVALID_ARGUMENT" in faults[0][0], faults
        assert canary.figures(store, near.names).failures == 0
        with Client(endpoint.grpc, "digits") as client:
            answers = [client.predict({"image": rows["image"][0]}) for _ in range(4)]
        assert {answer["release"] for answer in answers} == {live.manifest.id, near.manifest.id}
        assert {answer["label"] for answer in answers} == {"0"}
    with served(store) as endpoint:
        assert_only_live(store, live, endpoint, near)


def test_callers_never_get_answers_of_a_shadow(after_two, candidates, far):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint, canary_of(after_two, store, endpoint, far, share=1.0, shadow=True):
        releases = [live_answers(endpoint.grpc, [live]) for _ in range(10)]
        assert set(releases) == {live.manifest.id}
        figures = canary.figures(store, far.names)
        assert figures.pairs == figures.disagreements == 10


def test_a_second_trial_starts_its_figures_at_zero(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint:
        for _ in range(2):
            with canary_of(after_two, store, endpoint, near):
                golden_answers(endpoint.grpc, live)
                golden_answers(endpoint.grpc, live)
                assert canary.figures(store, near.names).pairs == 1


def test_a_release_with_other_predictions_is_withdrawn(after_two, candidates, far):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint:
        with (
            asking(endpoint.grpc, live),
            pytest.raises(Refused, match=r"got another prediction; at most 100 of 1,000 may"),
        ):
            tried(after_two, store, far, requests=1000)
        assert_only_live(store, live, endpoint, far)
    line = ledger.lines(store.ledger)[-1]
    assert line["event"] == "withdrawn" and line["release"] == far.manifest.id and line["live"] == live.manifest.id
    assert 100 < line["figures"]["disagreements"] <= line["figures"]["pairs"] < 1000  # at once


def of_black_pictures_unsure(repository: Path, names: Names) -> None:
    """Multiply the probabilities by s / s, where s is the sum of the picture: NaN for a black picture."""
    path = repository / names.network / "1" / "model.onnx"
    network = onnx.load(path)
    network.graph.node[-1].output[0] = "sure"
    network.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]))
    network.graph.node.extend(
        [
            helper.make_node("Cast", [network.graph.input[0].name], ["light"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["light", "axes"], ["sum"], keepdims=0),
            helper.make_node("Div", ["sum", "sum"], ["one"]),
            helper.make_node("Unsqueeze", ["one", "last"], ["ones"]),
            helper.make_node("Mul", ["sure", "ones"], ["probabilities"]),
        ]
    )
    network.graph.initializer.append(helper.make_tensor("last", TensorProto.INT64, [1], [1]))
    path.write_bytes(network.SerializeToString(deterministic=True))


def of_black_pictures(does: str) -> Change:
    def change(repository: Path, names: Names) -> None:
        path = repository / names.encode / "1" / "model.py"
        code = f"""
def answer(self, requests, real=TritonPythonModel._answer):
    import time
    if any({BLACK!r} in self._raw(request)["image"] for request in requests):
        {does}
    return real(self, requests)

TritonPythonModel._answer = answer
"""
        path.write_text(path.read_text() + code)

    return change


@pytest.mark.parametrize(
    "change",
    [of_black_pictures_unsure, of_black_pictures('raise KeyError("black")'), of_black_pictures("time.sleep(2)")],
    ids=["not a number", "raises", "late"],
)
def test_a_failing_release_is_withdrawn_and_callers_notice_nothing(after_two, candidates, tmp_path, change):
    store, live = Store(after_two / "live"), candidates[1]
    bad = variant(candidates[0], tmp_path, change)
    with served(store) as endpoint:
        with (
            asking(endpoint.grpc, live, {"image": [BLACK]}) as answered,
            pytest.raises(Refused, match="failed or came"),
        ):
            tried(after_two, store, bad, late_s=0.5)
        assert set(answered) == {live.manifest.id}
        assert_only_live(store, live, endpoint, bad)
    assert ledger.lines(store.ledger)[-1]["figures"]["failures"] == 1


def test_a_trial_with_too_few_requests_is_refused(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    with served(store) as endpoint:
        with pytest.raises(
            Refused, match=r"both releases got 0 requests within 0\.001 minutes, which is too few to judge"
        ):
            tried(after_two, store, near, minutes=0.001)
        assert_only_live(store, live, endpoint, near)


def test_a_trial_needs_a_server_and_a_comparable_live_release(empty, after_two, candidates, near, tmp_path):
    store = Store(after_two / "live")
    with pytest.raises(Misuse, match="no server is running"):
        tried(after_two, store, near)
    with served(store) as endpoint:
        with pytest.raises(Misuse, match="is live already"):
            tried(after_two, store, candidates[1])
        added = variant(candidates[0], tmp_path, relabelled(lambda old: [*old, "ten"]))
        with pytest.raises(Misuse, match="needs the live release's outputs and classes"):
            tried(after_two, store, added)
        assert_only_live(store, candidates[1], endpoint, near)
    with pytest.raises(Misuse, match="no release of digits is live yet"):
        nothing = shutil.copytree(empty, tmp_path / "nothing")
        tried(nothing, Store(nothing / "live"), near)
    assert [line["event"] for line in ledger.lines(store.ledger)] == ["released", "released"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_trial_leaves_the_live_release(after_two, candidates, near, end):
    store, live = Store(after_two / "live"), candidates[1]
    make_champion(after_two, near)
    with served(store) as endpoint:
        with asking(endpoint.grpc, live) as answered, command(after_two, store, near) as process:
            process.send_signal(end)
            output, _ = process.communicate(timeout=60)
            if end == signal.SIGKILL:
                assert store.diverted(near.names)
                with administered(endpoint.grpc, endpoint.admin_key) as admin, store.writing("the next command"):
                    settle(after_two, store, admin)
            else:
                assert process.returncode == 3 and "the command was ended" in output and "Traceback" not in output, (
                    output
                )
        assert not [fault for fault in answered if isinstance(fault, Exception)]
        assert_only_live(store, live, endpoint, near)


def test_the_supervisor_ends_the_canary_of_a_killed_command(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    make_champion(after_two, near)
    with serving(after_two) as (_, address), asking(address, live) as answered:
        with command(after_two, store, near) as process:
            process.kill()
        until(lambda: not store.routed() and not list(store.repository.glob(f"*{near.manifest.id}*")))
        until(answering(address, candidates, live.manifest.id))
    assert not [fault for fault in answered if isinstance(fault, Exception)]


def test_a_server_that_dies_during_a_trial_is_restarted(after_two, candidates, near):
    store, live = Store(after_two / "live"), candidates[1]
    make_champion(after_two, near)
    with serving(after_two) as (server, address), asking(address, live):
        with command(after_two, store, near) as process:
            (triton,) = [
                each for each in psutil.Process(server.pid).children(recursive=True) if each.name() == "tritonserver"
            ]
            triton.kill()
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 3 and f"{near.manifest.id} is withdrawn" in output, output
        until(answering(address, candidates, live.manifest.id))
    assert store.current("digits") == live.manifest.id and not store.routed()


@pytest.mark.parametrize("share", ["5", "0%", "101%", "some%", "nan%"])
def test_a_share_must_be_a_percentage(empty, share):
    with pytest.raises(Misuse, match="write it as 5%"):
        cli.share(share)
