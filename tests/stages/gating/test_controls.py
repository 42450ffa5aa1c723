"""Models that are bad on purpose, through the real server: each is what it says, and the gate tells them all."""

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


def test_each_is_refused_for_its_own_reason(reports):
    verdict = json.loads((reports / "verdict.json").read_text())
    assert {each["name"]: (each["expected"], each["outcome"]) for each in verdict["controls"]} == {
        "labels shuffled": ("threshold", "refused"),
        "noise for weights": ("threshold", "refused"),
        "one answer": ("threshold", "refused"),
        "one row repeated": ("parity", "refused"),
        "slow": ("latency", "refused"),
        "itself": ("no difference", "no difference"),
    }
    scored = {each["name"]: each["scored"] for each in verdict["controls"]}
    assert scored["labels shuffled"]["accuracy"] < 0.1 and scored["one row repeated"]["served: one row repeated"] > 0.5


def test_each_answers_as_it_says(reports):
    own = np.load(reports / "answers" / "answers.npz")["probabilities"]
    bad = np.load(reports / "answers" / "controls.npz")
    np.testing.assert_allclose(bad["labels shuffled"], np.roll(own, 1, axis=1), atol=1e-5)
    np.testing.assert_allclose(bad["one answer"], np.broadcast_to(own.mean(0), own.shape), atol=1e-5)
    np.testing.assert_allclose(bad["one row repeated"], np.repeat(own[::64], 64, axis=0)[: len(own)], atol=1e-5)
    assert np.abs(bad["noise for weights"] - own).max() > 0.5
    np.testing.assert_allclose(bad["noise for weights"].sum(1), 1, atol=1e-5)


def test_the_slow_one_took_as_long_as_it_says(reports):
    slow = json.loads((reports / "times.json").read_text())["slow"]
    assert slow["what"] == "a model that takes 200 ms to answer" and slow["evidence"]["p99_ms"] >= 200


def test_a_gate_that_is_too_weak_refuses_and_says_what_to_tighten(done):
    done.params(gate={"thresholds": {"accuracy": {"min": 0.0}}})
    said = done.millrace("run", code=3)
    assert "refused: accuracy: {min: 0} would pass a model with its labels shuffled (accuracy 0.0" in said
    assert "would pass a model that answers all rows alike (accuracy 0.1" in said


def test_the_slow_one_takes_twice_the_bound_within_reason():
    assert [controls.slow(p99_ms).delay_ms for p99_ms in (3.5, 100.0, 1e9)] == [7.0, 200.0, 10_000.0]


def test_none_repeats_a_row_where_requests_hold_but_one():
    right = {"value": np.ones((3, 1), np.float32), "interval": np.ones((3, 2), np.float32)}
    said = {each.name: each.inapplicable for each in controls.wrong(NUMBER, right, largest=1)}
    assert [name for name, why in said.items() if why] == ["one row repeated"]
    assert not any(each.inapplicable for each in controls.wrong(NUMBER, right, largest=2))


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 100_000])
def test_some_rows_are_spread_over_all(samples):
    rows = controls.some_rows(samples)
    assert len(rows) == min(samples, 512) and (rows[0], rows[-1]) == (0, samples - 1)
    assert (np.diff(rows) > 0).all() and (np.diff(rows) <= samples // 512 + 1).all()
