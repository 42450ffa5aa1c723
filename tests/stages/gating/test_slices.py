"""Slices: every test row is in one slice, by its value or range."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.gating import slices

settings.register_profile("here", derandomize=True, deadline=None, database=None)  # the same on every machine
settings.load_profile("here")

texts = st.lists(st.none() | st.sampled_from("abc") | st.text(min_size=1, max_size=2), max_size=99)
numbers = st.lists(st.sampled_from([math.nan, 0.0, 1.0, 1.0000001, 1e9]) | st.floats(-1e6, 1e6), max_size=99)


def is_partition(cuts, cells, missing):
    """Whether each row is in one slice, rows ascend and names differ; no slice if all cells are missing."""
    if all(missing):
        return cuts == []
    rows = sorted(row for cut in cuts for row in cut.at.tolist())
    ascending = all(cut.at.tolist() == sorted(cut.at.tolist()) and len(cut.at) for cut in cuts)
    without = [row for cut in cuts if cut.value == slices.MISSING for row in cut.at]
    named = len({cut.value for cut in cuts}) == len(cuts)
    return rows == [*range(len(cells))] and ascending and named and without == np.flatnonzero(missing).tolist()


@given(texts)
def test_texts_are_cut_by_value(cells):
    cuts = slices.cut(cells, 4)
    assert is_partition(cuts, cells, [cell is None for cell in cells])
    for cut in (cut for cut in cuts if cut.value not in (slices.MISSING, slices.OTHERS)):
        assert {cells[row] for row in cut.at} == {cut.value}
    assert len(cuts) <= slices.MOST + 2
    assert slices.vanished(as_listed(cuts), "town", cells) == []
    assert slices.vanished(as_listed(cuts), "town", [None]) == [
        cut.value for cut in cuts if cut.value not in (slices.MISSING, slices.OTHERS)
    ]


@given(numbers, st.integers(2, 9))
def test_numbers_are_cut_into_ranges(cells, bins):
    cells = np.array(cells, np.float64)
    cuts = slices.cut(cells, bins)
    assert is_partition(cuts, cells, np.isnan(cells))
    ranges = [cut for cut in cuts if cut.span]
    assert len(ranges) <= bins
    for cut in ranges:
        assert cut.span == (cells[cut.at].min(), cells[cut.at].max())
    ends = [end for cut in ranges for end in cut.span]
    assert ends == sorted(ends)
    assert slices.vanished(as_listed(cuts), "town", cells) == []


def as_listed(cuts):
    """As a verdict lists them."""
    return [{"by": "town", "value": cut.value, "span": cut.span} for cut in cuts]


def test_rare_values_share_one_slice():
    cells = [str(number) for number in range(slices.MOST + 9)] * 2 + ["0"]
    cuts = slices.cut(cells, 4)
    assert (cuts[-1].value, len(cuts[-1].at), len(cuts)) == (slices.OTHERS, 18, slices.MOST + 1)


def test_ranges_have_distinct_names():
    cuts = slices.cut(np.array([0.0, 0.1, 1.00001, 1.00002, 1.00003, 1.00004]), 3)
    assert [cut.value for cut in cuts] == ["0 to 0.1", "1.00001 to 1.00002", "1.00003 to 1.00004"]
    assert [cut.value for cut in slices.cut(np.array([8.0] * 9 + [1230.0]), 4)] == ["8", "1230"]
