"""Intervals of proportions and medians against published numbers and scipy, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, wilcoxon

from stages import gate, measure
from stages.stats import medians, proportions


def pairs(both, ours, theirs, neither):
    """Hits of two models on as many samples, bool [N] each."""
    counts = both, ours, theirs, neither
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("hits", "samples"), [(0, 10), (10, 10), (7, 10), (1, 300), (299, 300)])
def test_the_interval_of_a_share_equals_scipys(hits, samples):
    low, high = proportions.interval(np.arange(samples) < hits, 0.05)
    expected = binomtest(hits, samples).proportion_ci(confidence_level=0.9, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_a_difference_equals_the_published_one():
    """Fagerland, Lydersen, Laake: "Recommended tests and confidence intervals for paired binomial proportions", 2014.

    Bentur's 21 patients, of whom 1, 1, 7 and 12: -0.286 with (-0.517, -0.026) at 95 %.
    """
    value, low, _ = proportions.difference(*pairs(both=1, ours=1, theirs=7, neither=12), level=0.025)
    assert (value, low) == pytest.approx((-0.286, -0.517), abs=5e-4)
    value, low, _ = proportions.difference(*pairs(both=1, ours=7, theirs=1, neither=12), level=0.025)
    assert (value, low) == pytest.approx((0.286, 0.026), abs=5e-4)


@pytest.mark.parametrize("samples", [1, 2, 20, 381])
def test_without_an_observed_difference_the_lower_end_is_below_zero(samples):
    """If two models never differ on n samples, it is -z^2 / (n + z^2), by Wilson's interval of 0."""
    all_hit, z = np.ones(samples, bool), 1.6448536
    value, low, error = proportions.difference(all_hit, all_hit, level=0.05)
    assert (value, low) == (0, pytest.approx(-(z**2) / (samples + z**2)))
    assert error == pytest.approx(z / samples)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.499, 0.4999])
@pytest.mark.parametrize("samples", [2, 500, 20_000])
def test_a_further_loss_lowers_the_end_but_not_the_error(level, samples):
    both = samples - 2
    before = proportions.difference(*pairs(both, ours=1, theirs=0, neither=1), level)
    after = proportions.difference(*pairs(both, ours=1, theirs=1, neither=0), level)
    assert after[0] < before[0] and after[1] < before[1] and after[2] == before[2]
    assert before[1] < before[0]


def test_the_largest_and_smallest_differences():
    hit, missed = np.ones(9, bool), np.zeros(9, bool)
    assert proportions.difference(missed, hit, level=0.05)[:2] == (-1, -1)
    assert proportions.difference(hit, missed, level=0.05)[0] == 1
    assert 0.4 < proportions.difference(hit, missed, level=0.05)[1] < 1


@pytest.mark.parametrize("count", [1, 4, 5, 20])
def test_the_ends_of_a_center_agree_with_the_signed_rank_test(count):
    draw = np.random.default_rng(count)
    for shift in np.linspace(-1, 1, 21):
        values = draw.normal(shift, size=count)
        center, low, high = medians.middle(values.tolist(), 0.05)
        assert low <= center <= high and np.isinf([low, high]).all() == (count < 5)
        for lies, side in ((low > 0, "greater"), (high < 0, "less")):
            assert lies == (wilcoxon(values, alternative=side, method="exact").pvalue <= 0.05)


def latencies(draw, sessions=measure.SESSIONS, pairs=10):
    """Latencies of two equal models; in half of the sessions everything takes fifty times as long."""
    load = draw.choice([1.0, 50.0], (sessions, 1))
    return (load * draw.lognormal(0, 0.3, (sessions, pairs)) for _ in range(2))


def is_refused(ours, theirs):
    figure = gate.slower(measure.ratios(ours, theirs), 1.5, 0.05)
    return not figure.note and figure.value > figure.most


def test_bursts_that_slow_both_models_do_not_change_the_ratio():
    ours, theirs = latencies(np.random.default_rng(0))
    assert not is_refused(ours, theirs) and is_refused(ours * 2, theirs)


def test_a_model_at_the_bound_is_refused_no_more_often_than_the_level():
    """A burst may hit one model alone for a whole session, either one with equal chance."""
    draw, refused = np.random.default_rng(0), []
    for _ in range(400):
        ours, theirs = latencies(draw)
        hit = draw.choice([0.1, 1.0, 10.0], (len(ours), 1))
        refused.append(is_refused(1.5 * ours * hit, theirs))
    assert proportions.interval(np.array(refused), 0.01)[0] <= 0.05
