"""Which split each row is in, and which rows are left out."""

from __future__ import annotations

import functools
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from stages import prepare
from stages.core.errors import UserError
from stages.schema.kinds import target_number
from stages.tables import splits, table
from stages.tables.arrays import SPLITS, open_split, read_summary
from tests.support.failing import failing
from tests.support.preparing import PATHS, many, name, official, placed, row, run


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return functools.partial(run, tmp_path, monkeypatch)


def keys_of(ids):
    return table.keys(pa.chunked_array([list(ids)], pa.string()))


def split_of(rows, val=0.2, test=0.3):
    ids, splits = (np.array([each[key] for each in rows], object) for key in ("_id", "_split"))
    return dict(zip(ids, prepare.assign(keys_of(ids), splits, val, test), strict=True))


def test_new_samples_move_no_old_one():
    rows = [{"_id": name(number), "_split": None} for number in range(3000)]
    before = split_of(rows[:1000])
    random.Random(0).shuffle(rows)
    after = split_of(rows)
    assert {key: after[key] for key in before} == before


def test_splits_by_hash_never_change():
    rows = [{"_id": name(number), "_split": None} for number in range(12)]
    assert " ".join(split_of(rows).values()) == "val val train val test train train val test test test val"


def test_splits_by_hash_have_about_the_declared_shares():
    counts = Counter(split_of([{"_id": name(number), "_split": None} for number in range(5000)]).values())
    assert counts["val"] == pytest.approx(1000, abs=120)
    assert counts["test"] == pytest.approx(1500, abs=120)


def test_a_larger_test_share_only_adds_samples():
    rows = [{"_id": name(number), "_split": None} for number in range(1000)]
    small, large = ({key for key, split in split_of(rows, test=test).items() if split == "test"} for test in (0.1, 0.3))
    assert small < large


def keyed(keys, **columns):
    """Rows of distinct samples, each with the key to split it by."""
    return [
        row(number, "cat" if number % 2 else "dog", **columns) | {"_split_by": key} for number, key in enumerate(keys)
    ]


def of_keys(here):
    """The keys of the rows in each split."""
    cells = table.column(here / PATHS[0], "_split_by")
    return {split: [cells[i] for i in open_split(here / PATHS[2], split).rows] for split in SPLITS}


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_splits(stage, seed):
    chance = random.Random(seed)
    rows = keyed([f"patient {chance.randrange(40)}" for _ in range(200)])
    for each in chance.sample(rows, 20):
        each["_split"] = chance.choice(["test", "train"])  # official splits that ignore groups
    for each in chance.sample(rows, 20):
        each["_id"] = rows[0]["_id"]
    here = stage(rows, by="group", column="patient")
    found = of_keys(here)
    assert all(set(found[one]).isdisjoint(found[other]) for one in SPLITS for other in SPLITS if one != other)
    assert sum(map(len, found.values())) + sum(read_summary(here / PATHS[2])["removed"].values()) == 200


def test_new_rows_move_no_group(stage):
    rows = keyed([f"patient {number % 30}" for number in range(120)])
    before = placed(stage(rows[:80], folder="before", by="group", column="patient"))
    after = placed(stage(rows[::-1], folder="after", by="group", column="patient"))
    assert {source: after[source] for source in before} == before


def test_a_row_without_a_group_is_an_error_that_names_it(stage):
    rows = keyed(["a", None, *"bcdefgh"])
    with failing(UserError, "data-invalid-value", "column patient", "cat/1.png"):
        stage(rows, by="group", column="patient")
    stage(rows * 5, rows[1:2], folder="set aside", by="group", column="patient", val=0.3, test=0.4)


@pytest.mark.parametrize(
    "when",
    [
        str,
        lambda day: f"{day / 8:.3f}",
        lambda day: f"2024-{1 + day // 28:02}-{1 + day % 28:02}",
        lambda day: f"2024-01-01T{day // 60:02}:{day % 60:02}:00Z",
        lambda day: f"2024-01-01 {day // 60:02}:{day % 60:02}:00.125+05:00",
    ],
)
def test_training_rows_are_the_earliest(stage, when):
    days = random.Random(0).sample(range(100), 100)
    found = of_keys(stage(keyed([when(day) for day in days]), by="time", column="sold"))
    order = {when(day): day for day in days}
    assert [sorted(order[key] for key in found[split]) for split in SPLITS] == [
        [*range(50)],
        [*range(50, 70)],
        [*range(70, 100)],
    ]


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_the_same_time_stay_together(stage, seed):
    chance = random.Random(seed)
    found = of_keys(stage(keyed([str(chance.randrange(12)) for _ in range(100)]), by="time", column="year"))
    train, val, test = ({int(key) for key in found[split]} for split in SPLITS)
    assert max(train) < min(val) <= max(val) < min(test)
    assert len(found["test"]) == pytest.approx(30, abs=8)


def test_with_an_official_test_split_the_latest_rows_are_val(stage):
    rows = keyed([str(year) for year in range(50)], split="train") + keyed(["7"] * 10, split="test")
    for number, each in enumerate(rows):
        each["_id"] = name(number)
    assert sorted(map(int, of_keys(stage(rows, by="time", column="year"))["val"])) == [*range(40, 50)]


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        (["2024-01-01", "soon", "2024-01-03"], "'soon'"),
        (["2024-01-01", "2024", "2024-01-03"], "'2024'"),
        (["1", "2024-01-01", "3"], "'2024-01-01'"),
        (["1", "inf", "3"], "'inf'"),
        (["1", None, "3"], "missing"),
    ],
)
def test_a_time_that_cannot_be_read_is_an_error_that_names_the_row(stage, cells, fault):
    with failing(UserError, "data-invalid-value", "column day", f"cat/1.png: {fault}"):
        stage(keyed(cells), by="time", column="day")


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_share_in_each_split(stage, seed):
    chance = random.Random(seed)
    sizes = {"cat": 61, "dog": 30, "eel": 2, "fox": 1, "gnu": 7}
    rows = [row(f"{seed} {label} {number}", label) for label, size in sizes.items() for number in range(size)]
    chance.shuffle(rows)
    found = placed(stage(rows, by="strata"))
    counts = Counter((source.split("/")[0], split) for source, split in found.items())
    for split, share in {"val": 0.2, "test": 0.3}.items():
        assert sum(n for (_, one), n in counts.items() if one == split) == round(101 * share)
        assert all(abs(counts[label, split] - share * size) < 1 for label, size in sizes.items())
    assert all(counts[label, "train"] for label in sizes)
    chance.shuffle(rows)
    assert placed(stage(rows, folder="again", by="strata")) == found


def test_every_class_keeps_a_sample_to_train_on():
    labels = np.array([f"one {number}" for number in range(20)] + [f"two {number % 20}" for number in range(40)])
    found = splits.by_strata(keys_of(map(name, range(60))), labels, 0.3, 0.4)
    assert set(labels[found == "train"]) == set(labels)
    assert Counter(found) == {"train": 40, "test": 20}


def test_new_samples_of_a_class_move_few_old_ones(stage):
    rows = many(200)
    before = placed(stage(rows[:180], folder="before", by="strata"))
    after = placed(stage(rows, folder="after", by="strata"))
    assert sum(before[source] != after[source] for source in before) < 40


def test_copies_of_a_sample_are_in_one_split_of_their_class(stage):
    rows = many(40) + [row(f"again {number}", "cat", sample=number) for number in range(1, 40, 2)]
    here = stage(rows, by="strata")
    assert read_summary(here / PATHS[2])["removed"]["copies of a later split"] == 0


def test_the_strata_of_a_number_are_its_deciles():
    amounts = np.random.default_rng(0).lognormal(0, 1, 500)
    strata = target_number.strata(amounts.tolist())
    assert np.bincount(strata).tolist() == [50] * 10
    ids = keys_of(map(name, range(500)))
    found = prepare.assign(ids, np.array([None] * 500), 0.1, 0.2, "strata", strata)
    assert Counter(found) == {"train": 350, "val": 50, "test": 100}
    assert [(found[strata == tenth] == "test").sum() for tenth in range(10)] == [10] * 10
    assert len(set(target_number.strata([1.0] * 9 + [2.0]))) <= 2


def test_official_splits_are_kept(stage):
    rows = official()
    assert placed(stage(rows)) == {each["_source"]: each["_split"] for each in rows}


def test_a_missing_val_split_is_taken_from_train(stage):
    rows = [each for each in official(40) if each["_split"] != "val"]
    found = placed(stage(rows))
    assert {found[each["_source"]] for each in rows if each["_split"] == "test"} == {"test"}
    taken = [found[each["_source"]] for each in rows if each["_split"] == "train"]
    assert set(taken) == {"train", "val"}
    assert taken.count("val") < 20


def test_of_a_sample_in_two_splits_the_earlier_copy_is_removed(stage):
    twice = [("train", "test"), ("train", "val"), ("val", "test")]
    copies = [row(f"{split} of {pair}", split=split, sample=pair) for pair in twice for split in pair]
    here = stage(official() + copies)
    assert {source for source in placed(here) if " of " in source} == {
        "cat/test of ('train', 'test').png",
        "cat/val of ('train', 'val').png",
        "cat/test of ('val', 'test').png",
    }
    assert read_summary(here / PATHS[2])["removed"] == {"quarantined": 0, "copies of a later split": 3}


def test_a_sample_in_all_splits_stays_in_test(stage):
    here = stage(official() + [row(f"in {split}", split=split, sample="x") for split in SPLITS])
    assert [source for source in placed(here) if "/in " in source] == ["cat/in test.png"]


def test_copies_within_a_split_are_kept(stage):
    here = stage(official() + [row(f"copy {number}", split="train", sample="x") for number in range(2)])
    assert {"cat/copy 0.png", "cat/copy 1.png"} < set(placed(here))


def test_quarantined_rows_are_removed_except_from_the_official_test_split(stage):
    rows = official()
    bad = [each for each in rows if each["_source"].endswith("3.png")]
    here = stage(rows, bad)
    assert {source for source in placed(here) if source.endswith("3.png")} == {"cat/test3.png"}
    assert read_summary(here / PATHS[2])["removed"]["quarantined"] == 2


def test_an_accepted_copy_of_a_quarantined_row_is_kept(stage):
    sound, bad = (row(word, split="train", sample="x") for word in ("sound", "bad"))
    found = placed(stage([*official(), sound, bad], [bad]))
    assert "cat/sound.png" in found
    assert "cat/bad.png" not in found


def test_a_quarantined_copy_in_a_later_split_removes_no_training_row(stage):
    rows = official()
    bad, sound = row("bad", split="val", sample="x"), row("sound", split="train", sample="x")
    assert placed(stage([*rows, bad, sound], [bad]))["cat/sound.png"] == "train"
