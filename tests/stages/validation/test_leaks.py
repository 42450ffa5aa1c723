"""What tells the target before it is known is found, by columns that do and by those that only look like it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from stages.validation import afterwards, leaks, near_duplicates, sums


def table(count=600, seed=0, **columns):
    """Three amounts and a word of no importance, and the columns that are functions of the amounts."""
    chance = np.random.default_rng(seed)
    amounts = {name: chance.gamma(2, size, count).round(2) for name, size in (("fare", 9), ("tip", 2), ("tolls", 4))}
    rows = pd.DataFrame({"_id": range(count), **amounts, "town": chance.choice(["Ulm", "Bonn"], count)})
    return rows.assign(**{name: make(rows, chance) for name, make in columns.items()})


def found(rows, target="y", most=math.inf):
    """Name -> severity of each limit that is passed."""
    suite, values = leaks.expected(rows, target, 0.95, most)
    passed = [limit for _, limit in suite if values[limit["column"]] > limit["max_value"] or limit.get("strict_max")]
    return {limit["column"]: limit["severity"] for limit in passed}


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (lambda rows, _: rows.fare + rows.tip + rows.tolls, "fare + tip + tolls"),
        (lambda rows, _: rows.fare + rows.tip, "fare + tip"),
        (lambda rows, _: 100 * (rows.fare - rows.tolls) + 3, "fare - tolls"),
        (lambda rows, _: rows.fare - rows.tolls - rows.tip, "fare - tip - tolls"),
        (lambda rows, _: -rows.fare - rows.tip, "- fare - tip"),
        (lambda rows, _: (rows.fare + rows.tip + rows.tolls).round(0), "fare + tip + tolls"),
    ],
)
def test_a_sum_or_difference_of_columns_that_is_the_target_is_found(target, text):
    rows = table(y=target)
    assert [each.text for each in sums.find(rows, "y")] == [text]
    assert found(rows)[text] == "warning"


@pytest.mark.parametrize(
    "target",
    [
        lambda rows, chance: rows.fare + rows.tip + chance.normal(0, 2, len(rows)),
        lambda rows, _: 2 * rows.fare + rows.tip,
        lambda rows, _: rows.fare * rows.tip,
        lambda rows, chance: chance.normal(size=len(rows)),
        lambda rows, _: rows.fare,
    ],
)
def test_no_sum_is_made_up(target):
    assert sums.find(table(y=target), "y") == []


def test_a_sum_with_blanks_is_found():
    rows = table(y=lambda rows, _: rows.fare + rows.tip)
    rows.loc[::7, "tip"] = np.nan
    assert [each.text for each in sums.find(rows, "y")] == ["fare + tip"]


def test_a_sum_among_thousands_of_columns_is_found():
    chance = np.random.default_rng(0)
    values = chance.normal(size=(300, 2000))
    rows = pd.DataFrame(values, columns=[f"c{place}" for place in range(2000)]).assign(_id=range(300))
    assert sums.find(rows.assign(y=rows.c7 + rows.c1234), "y") == [sums.Sum("c7 + c1234", 1.0)]
    assert sums.find(rows.assign(y=rows.c7 - rows.c8 + rows.c1999), "y") == [sums.Sum("c7 + c1999 - c8", 1.0)]


def test_a_column_that_is_blank_for_one_class_is_found():
    """Such as the day on which a customer left."""
    rows = table(y=lambda rows, chance: chance.choice(["left", "stays", "new"], len(rows)))
    rows["day"] = np.where(rows.y == "left", rows.fare, np.nan)
    rows["partly"] = np.where(rows.index % 3 == 0, rows.fare, np.nan)
    assert ("day", "left", 1.0) not in afterwards.blanks(rows, "y")
    rows["day"] = np.where(rows.y != "left", rows.fare, np.nan)
    assert ("day", "left", 1.0) in afterwards.blanks(rows, "y")
    assert found(rows) == {"day missing": "warning"}
    numbers = rows.assign(y=np.where(rows.y == "left", 0.0, rows.tip))
    assert found(numbers)["day missing"] == "warning"


def test_an_id_that_carries_the_order_of_sorted_rows_is_found():
    chance = np.random.default_rng(0)
    rows = table(y=lambda rows, _: np.sort(rows.fare.to_numpy()) + chance.normal(0, 4, len(rows)))
    rows["number"] = np.arange(len(rows)) * 3 + 1000
    assert "number in order" in found(rows)
    assert "number in order" not in found(rows.assign(y=chance.permutation(rows.y)))
    assert "number in order" not in found(rows.assign(number=chance.permutation(rows.number)))


def test_what_tells_everything_is_refused_at_1_and_a_warning_without_a_limit():
    exact = table(y=lambda rows, _: np.where(rows.town == "Ulm", "b", "a"))
    assert found(exact) == {"town": "warning"}
    assert found(exact, most=1.0) == {"town": "critical"}
    total = table(y=lambda rows, _: rows.fare + rows.tip + rows.tolls)
    assert found(total, most=1.0)["fare + tip + tolls"] == "critical"
    nearly = exact.assign(y=np.where(exact.index % 50, exact.y, "a"))
    assert found(nearly, most=1.0) == {"town": "warning"}
    assert found(nearly, most=0.9) == {"town": "critical"}


def test_labels_that_are_the_same_number_in_two_spellings_are_named():
    suite, values = near_duplicates.expected(pd.Series(["2"] * 5 + ["2.0"] * 3 + ["02", "3", "20"]), "y")
    assert values == {"labels": 3}
    assert "'02' (1) and '2' (5) and '2.0' (3)" in suite[0][1]["notes"]
    assert near_duplicates.expected(pd.Series(["2", "20", "a", "A+"]), "y") == ([], {})
