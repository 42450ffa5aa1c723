"""Controls through the real server: each is bad in its own way, and the gate refuses each of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stages.gating import controls
from stages.schema import Column, Schema

NUMBER = Schema((), Column("price", "target_number", {}, {"mean": 10.0, "std": 2.0, "coverage": 0.9}))


@pytest.fixture(scope="module")
def reports(finished):
    return finished.folder / "reports"


def test_each_control_is_refused_for_the_expected_reason(reports):
    verdict = json.loads((reports / "verdict.json").read_text())
    assert {each["name"]: (each["expected"], each["outcome"]) for each in verdict["controls"]} == {
        "labels shuffled": ("threshold", "refused"),
        "noise for weights": ("threshold", "refused"),
        "one answer": ("threshold", "refused"),
        "one row repeated": ("parity", "refused"),
        "slow": ("latency", "refused"),
        "the constant answer": ("yardstick", "refused"),
        "itself": ("no difference", "no difference"),
    }
    scored = {each["name"]: each["scored"] for each in verdict["controls"]}
    assert scored["labels shuffled"]["accuracy"] < 0.1 and scored["one row repeated"]["served: one row repeated"] > 0.5


def test_each_control_answers_as_described(reports):
    right = np.load(reports / "answers" / "answers.npz")["probabilities"]
    bad = np.load(reports / "answers" / "controls.npz")
    np.testing.assert_allclose(bad["labels shuffled"], np.roll(right, 1, axis=1), atol=1e-5)
    np.testing.assert_allclose(bad["one answer"], np.broadcast_to(right.mean(0), right.shape), atol=1e-5)
    repeated = np.repeat(right[::64], 64, axis=0)[: len(right)]
    np.testing.assert_allclose(bad["one row repeated"], repeated, atol=1e-5)
    assert np.abs(bad["noise for weights"] - right).max() > 0.5
    np.testing.assert_allclose(bad["noise for weights"].sum(1), 1, atol=1e-5)


def test_the_slow_control_takes_twice_the_latency_bound(reports):
    slow = json.loads((reports / "times.json").read_text())["slow"]
    assert slow["what"] == "a model that takes 200 ms to answer" and slow["evidence"]["p99_ms"] >= 200


def test_a_gate_that_is_too_weak_refuses_and_names_the_bound_to_raise(done):
    done.params(gate={"thresholds": {"accuracy": {"min": 0.0}}})
    output = done.millrace("run", code=3)
    assert "refused: accuracy: {min: 0} would pass a model with its labels shuffled (accuracy 0.0" in output
    assert "would pass a model that gives all rows the same answer (accuracy 0.1" in output


def test_the_delay_of_the_slow_control_is_capped():
    assert [controls.slow(p99_ms).delay_ms for p99_ms in (3.5, 100.0, 1e9)] == [7.0, 200.0, 10_000.0]


def test_one_row_repeated_is_inapplicable_if_requests_hold_one_row():
    right = {"value": np.ones((3, 1), np.float32), "interval": np.ones((3, 2), np.float32)}
    inapplicable = [control.name for control in controls.wrong(NUMBER, right, largest=1) if control.inapplicable]
    assert inapplicable == ["one row repeated"]
    assert not any(control.inapplicable for control in controls.wrong(NUMBER, right, largest=2))


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 100_000])
def test_the_rows_for_controls_are_spread_evenly(samples):
    rows = controls.some_rows(samples)
    assert len(rows) == min(samples, 512) and (rows[0], rows[-1]) == (0, samples - 1)
    assert (np.diff(rows) > 0).all() and (np.diff(rows) <= samples // 512 + 1).all()
