"""Random malformed requests to `millrace serve`, while other clients check their own answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fuzz

pytestmark = pytest.mark.usefixtures("a_server")
REQUESTS = 400


def test_malformed_requests_do_not_disturb_other_callers(tmp_path: Path) -> None:
    outcome = fuzz.run(tmp_path / "project", 13, lambda sent: sent < REQUESTS)
    assert (outcome.healed, outcome.wrong, outcome.failed) == ([], [], [])
    assert outcome.sent >= REQUESTS and outcome.answered >= 200
    assert outcome.codes["gRPC INVALID_ARGUMENT"] and outcome.codes["HTTP 400"]
    for (threads, _), (threads_after, _) in outcome.grown.values():
        assert threads_after <= threads + 2
