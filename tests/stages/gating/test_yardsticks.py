"""The comparison with simple models: what it refuses, what it says, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import yardstick_rates
from stages.evaluation.yardsticks import Yardsticks
from stages.gating.evidence import Evidence, Policy, YardstickBounds
from stages.gating.verdict import judge
from stages.gating.wording import beside
from stages.gating.yardsticks import FEW_ROUNDS, compare, untested
from stages.schema import Column, Schema
from tests.support.gating import CHECKS, NO_CHAMPION, reasons

LEVEL, MARGIN = 0.05, 0.02


def classes(*counts):
    labels = [f"class {code}" for code in range(len(counts))]
    return Schema((), Column("t", "target_class", {}, {"labels": labels, "counts": list(counts)}))


NUMBER = Schema((), Column("t", "target_number", {}, {"mean": 0.0, "std": 1.0, "coverage": 0.9}))


def certain(codes, count):
    return np.eye(count, dtype=np.float32)[codes]


def judged(schema, truth, ours, simple, bounds=None, rounds=FEW_ROUNDS):
    found = compare(schema, truth, ours, simple, LEVEL, rounds)
    evidence = Evidence(
        "0123456789ab", {}, CHECKS, 1.0, NO_CHAMPION, yardsticks=found, untested=untested(schema, truth)
    )
    return judge(evidence, Policy({}, {}, LEVEL, 100.0, (), {}, bounds or YardstickBounds(True, MARGIN)))


def regression(rows, noise, linear_noise, seed=0):
    """The verdict on predictions with this much noise, beside a linear model with noise of its own."""
    draw = np.random.default_rng(seed)
    truth, ours, linear = (draw.normal(scale=scale, size=(rows, 1)) for scale in (1.0, noise, linear_noise))
    simple = {"constant": np.zeros((rows, 1)), "linear": truth + linear}
    simple = Yardsticks({name: value.astype(np.float32) for name, value in simple.items()}, "linear")
    return judged(NUMBER, truth.astype(np.float32), (truth + ours).astype(np.float32), simple)


def test_a_weak_network_is_refused_where_a_linear_model_is_right():
    verdict = regression(40, 0.4, 0.05)
    (reason,) = reasons(verdict).values()
    assert reason.startswith("a linear model reaches r2 0.99") and ", this model 0.67" in reason
    assert "gate.yardsticks.margin allows 0.02: train longer, or change model and train" in reason
    assert beside(verdict["yardsticks"]) == "r2 on the same rows: constant -0.01 · linear 1.00 · this model 0.67"


def test_a_model_as_good_as_the_best_passes():
    assert reasons(regression(40, 0.05, 0.05)) == {}
    assert reasons(regression(30, 0.05, 2.0)) == {}  # the best on the val split may be bad on the test rows


def test_a_loss_that_chance_may_explain_is_a_note():
    verdict = regression(30, 0.55, 0.5, seed=2)
    assert reasons(verdict) == {}
    (note,) = [criterion["note"] for criterion in verdict["criteria"] if criterion["note"]]
    assert "30 test rows are too few to say that more than 0.02 of this is no chance" in note


def test_noise_is_refused_with_what_simple_models_reach():
    draw = np.random.default_rng(1)
    truth, ours, linear = (draw.integers(2, size=300) for _ in range(3))
    constant = np.tile(np.array([[0.6, 0.4]], np.float32), (300, 1))
    simple = Yardsticks({"constant": constant, "linear": certain(linear, 2)}, "constant")
    verdict = judged(classes(6, 4), truth, certain(ours, 2), simple)
    assert list(reasons(verdict)) == ["accuracy over the constant answer's"]
    (reason,) = reasons(verdict).values()
    assert "not better by more than chance" in reason and "nor is any simple model on the val rows" in reason


def test_the_reason_says_what_is_reachable():
    truth = np.arange(200) % 2
    constant, ours = np.tile(np.array([[0.6, 0.4]], np.float32), (200, 1)), np.zeros(200, np.int64)
    simple = Yardsticks({"constant": constant, "trees": certain(truth, 2)}, "trees")
    verdict = judged(classes(6, 4), truth, certain(ours, 2), simple, YardstickBounds(True, None))
    assert list(reasons(verdict).values()) == [
        "accuracy is 0.5000 and the constant answer's 0.5000, on 200 test rows: not better by more than chance; boosted"
        " trees reaches 1.0000 on the same rows: train longer, or change model and train"
    ]


@pytest.mark.parametrize("bounds", [YardstickBounds(True, None), YardstickBounds(True, MARGIN)])
def test_the_constant_answer_is_always_refused(bounds):
    truth = np.arange(100) % 3
    constant = np.tile(np.array([[0.4, 0.3, 0.3]], np.float32), (100, 1))
    simple = Yardsticks({"constant": constant}, "constant")
    assert "accuracy over the constant answer's" in reasons(judged(classes(4, 3, 3), truth, constant, simple, bounds))


def test_rows_of_nearly_one_class_are_judged_by_their_ranks():
    """The constant answer is right in 95 of 100 rows, and so is a model that ranks them well."""
    truth = (np.arange(400) % 20 == 0).astype(np.int64)
    odds = np.random.default_rng(0).normal(size=400) + 2 * truth
    ours = np.stack([1 - 0.4 / (1 + np.exp(-odds)), 0.4 / (1 + np.exp(-odds))], axis=1).astype(np.float32)
    constant = np.tile(np.array([[0.95, 0.05]], np.float32), (400, 1))
    simple = Yardsticks({"constant": constant, "linear": ours}, "linear")
    verdict = judged(classes(95, 5), truth, ours, simple)
    assert reasons(verdict) == {} and verdict["yardsticks"]["metric"] == "auroc"
    assert verdict["yardsticks"]["values"]["constant"] == 0.5


def test_classes_without_test_rows_are_named():
    truth = np.array([0, 2, 0, 2] * 10)
    constant = np.tile(np.array([[0.5, 0.2, 0.3]], np.float32), (40, 1))
    verdict = judged(classes(5, 2, 3), truth, certain(truth, 3), Yardsticks({"constant": constant}, "constant"))
    assert reasons(verdict) == {} and verdict["untested"] == ["class 1"]
    (note,) = [criterion["note"] for criterion in verdict["criteria"] if criterion["note"]]
    assert note.startswith("no test row is labeled class 1: ") and note.endswith("split: {by: strata}")


def test_a_single_test_row_cannot_be_judged():
    one = np.ones((1, 1), np.float32)
    failed = reasons(judged(NUMBER, one, one, Yardsticks({"constant": 0 * one}, "constant")))
    assert (
        "r2 could not be compared with the constant answer's on 1 test rows" in failed["r2 over the constant answer's"]
    )


@pytest.mark.parametrize("rows", [30, 400])
def test_both_errors_are_rare(rows):
    """At most at the level, but for chance: what knows nothing passes, what is worse by the margin is refused."""
    passed = ~yardstick_rates.refused(yardstick_rates.accuracy, rows, None, "above", 400)
    refused = yardstick_rates.refused(yardstick_rates.accuracy, rows, MARGIN, "margin", 400)
    assert 0 < passed.mean() < LEVEL + 0.03 and 0 < refused.mean() < LEVEL + 0.03
    assert yardstick_rates.refused(yardstick_rates.r2, rows, 0.5, "margin", 5).mean() > 0.5
