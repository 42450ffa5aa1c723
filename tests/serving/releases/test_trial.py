"""How a trial is judged, and when two predictions agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.releases import trial as trials
from stages.schema.kinds import target_class, target_number
from tests.support.releases import TRIAL

FINE = trials.Figures(pairs=100, live_p50_s=0.001, new_p50_s=0.001)


@pytest.mark.parametrize(
    ("figures", "over", "reasons"),
    [
        (FINE, True, []),
        (replace(FINE, pairs=99), False, []),
        (replace(FINE, pairs=99), True, ["99 requests within 1 minutes, which is too few"]),
        (replace(FINE, failures=2), False, []),
        (replace(FINE, pairs=9, failures=3), False, ["3 of 9 requests failed or came late; at most 2 of 100 may"]),
        (replace(FINE, disagreements=10.0), False, []),
        (replace(FINE, disagreements=10.5), False, ["10.5 of 100 requests got another prediction"]),
        (replace(FINE, pairs=200, failures=4, disagreements=20.0), False, []),
        (replace(FINE, new_p50_s=0.0015), False, []),
        (replace(FINE, new_p50_s=0.0016), False, ["1.60 ms against 1.00 ms, 1.60 times as long; at most 1.5 times"]),
        (replace(FINE, pairs=9, new_p50_s=0.0016), False, []),
    ],
)
def test_reasons_to_withdraw_a_release(figures, over, reasons):
    trial = replace(TRIAL, requests=100, max_failures=0.02, max_latency_ratio=1.5)
    judged = trials.judge(figures, trial, over)
    assert len(judged) == len(reasons) and all(
        expected in actual for expected, actual in zip(reasons, judged, strict=True)
    ), judged


def test_agreement_of_predictions():
    live = {"probabilities": np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)}
    new = {"probabilities": np.array([[0.6, 0.4], [0.5, 0.5]], np.float32)}
    assert target_class.agree(live, new, {}).tolist() == [True, False]
    live = {"value": np.array([[1], [2]], np.float32), "interval": np.array([[0, 2], [1, 3]], np.float32)}
    new = {"value": np.array([[2], [3.1]], np.float32), "interval": np.zeros((2, 2), np.float32)}
    assert target_number.agree(live, new, {}).tolist() == [True, False]
