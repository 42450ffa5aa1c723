"""Simple models on the arrays that the network reads: what they reach, and that they are the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from stages import trees
from stages.evaluation import yardsticks
from stages.evaluation.yardsticks import fitting
from stages.schema import Column, Schema
from stages.tables.arrays import SPLITS

ROWS = 400
DRAW = np.random.default_rng(0)
NUMBERS = Column("a", "number", {}, {"mean": 0.0, "std": 1.0})
CATEGORIES = Column("b", "category", {}, {"size": 12})
TEXT = Column("c", "text", {}, {"length": 6})
IMAGE = Column("d", "image", {}, {"height": 20, "width": 17, "channels": 1})


def of_classes(y, labels="xyz"):
    counts = np.bincount(y, minlength=len(labels)).tolist()
    return Column("t", "target_class", {}, {"labels": list(labels), "counts": counts})


def of_numbers(y):
    return Column("t", "target_number", {}, {"mean": float(y.mean()), "std": float(y.std()), "coverage": 0.9})


def fitted(folder, features, target, blocks, y, shares=(0.6, 0.2)):
    """Fit the yardsticks to these arrays; return them with the truth of the test rows."""
    ends = [0, *(int(len(y) * share) for share in np.cumsum(shares)), len(y)]
    for name, first, behind in zip(SPLITS, ends, ends[1:], strict=False):
        (folder / name).mkdir(parents=True)
        for file, array in {"target": y, "rows": np.arange(len(y)), **dict(enumerate(blocks))}.items():
            np.save(
                folder / name / (f"{file:02d}.npy" if isinstance(file, int) else f"{file}.npy"), array[first:behind]
            )
    return fitting.fit(Schema(features, target), folder), y[ends[2] :]


def r2(predictions, y):
    return 1 - ((predictions - y) ** 2).mean() / y.var()


def accuracy(predictions, y):
    return (predictions.argmax(1) == y).mean()


def test_where_a_linear_model_is_right_it_is_the_best(tmp_path):
    x = DRAW.normal(size=(ROWS, 5)).astype(np.float32)
    y = (1e6 + 1e3 * x @ np.arange(1.0, 6.0))[:, None].astype(np.float32)
    found, truth = fitted(tmp_path, (NUMBERS,), of_numbers(y), [x], y)
    assert list(found.predictions) == ["constant", "linear", "trees"] and found.best == "linear"
    reached = {name: r2(predictions, truth) for name, predictions in found.predictions.items()}
    assert reached["linear"] > 0.9999 > reached["trees"] > 0.8 and reached["constant"] < 0.01


def test_where_only_trees_can_tell_they_are_the_best(tmp_path):
    x = DRAW.normal(size=(1000, 2)).astype(np.float32)
    y = ((x > 0).sum(1) == 1).astype(np.int64)
    found, truth = fitted(tmp_path, (NUMBERS,), of_classes(y, "xy"), [x], y)
    assert found.best == "trees"
    assert accuracy(found.predictions["trees"], truth) > 0.9 and accuracy(found.predictions["linear"], truth) < 0.65


@pytest.fixture(scope="module")
def mixture():
    """A block of each kind, made of the same hidden class, and the class."""
    y = DRAW.integers(3, size=ROWS)
    numbers = np.stack([y + DRAW.normal(size=ROWS) / 4, DRAW.normal(size=ROWS)], axis=1)
    numbers[DRAW.random(numbers.shape) < 0.1] = np.nan
    codes = np.stack([np.where(DRAW.random(ROWS) < 0.8, y + 2, DRAW.integers(12, size=ROWS))], axis=1)
    words = DRAW.integers(3, 40, size=(ROWS, 7))
    words[:, 0], words[np.arange(ROWS), 1 + DRAW.integers(4, size=ROWS)] = 2, 50 + y
    words[:, 5:] = 0
    pixels = DRAW.integers(200, size=(ROWS, 20, 17, 1))
    pixels[np.arange(ROWS), 5 * y + 3] = 255
    blocks = (numbers.astype(np.float32), codes.astype(np.int32), words.astype(np.int32), pixels.astype(np.uint8))
    return list(zip((NUMBERS, CATEGORIES, TEXT, IMAGE), blocks, strict=True)), y


@pytest.mark.parametrize("kind", [*range(4), slice(None)], ids=["numbers", "categories", "texts", "pictures", "all"])
@pytest.mark.parametrize("number", [False, True], ids=["class", "number"])
def test_every_kind_tells_a_target(mixture, tmp_path, kind, number):
    chosen = mixture[0][kind] if isinstance(kind, slice) else [mixture[0][kind]]
    features, blocks = zip(*chosen, strict=True)
    y = mixture[1].astype(np.float32)[:, None] if number else mixture[1]
    target, score = (of_numbers(y), r2) if number else (of_classes(y), accuracy)
    found, truth = fitted(tmp_path, features, target, blocks, y)
    constant = score(found.predictions["constant"], truth)
    for predictions in found.predictions.values():
        assert predictions.shape == (len(truth), 1 if number else 3) and predictions.dtype == np.float32
        assert np.isfinite(predictions).all()
        assert number or np.abs(predictions.sum(1) - 1).max() < 1e-5
    assert {name: score(found.predictions[name], truth) > constant + 0.2 for name in ("linear", "trees")} == {
        "linear": True,
        "trees": True,
    }


def test_order_counts_in_texts(tmp_path):
    """The same words, in two orders."""
    y = DRAW.integers(2, size=ROWS)
    words = np.where(y[:, None], [2, 5, 6, 7], [2, 6, 5, 7]).astype(np.int32)
    found, truth = fitted(tmp_path, (TEXT,), of_classes(y, "xy"), [words], y)
    assert accuracy(found.predictions["linear"], truth) == accuracy(found.predictions["trees"], truth) == 1


def test_equal_arrays_give_equal_bytes(mixture, tmp_path):
    written = []
    for name in ("one", "two"):
        features, blocks = zip(*mixture[0], strict=True)
        found, _ = fitted(tmp_path / name, features, of_classes(mixture[1]), blocks, mixture[1])
        found.save(tmp_path / f"{name}.npz")
        written.append((tmp_path / f"{name}.npz").read_bytes())
    assert written[0] == written[1]
    loaded = yardsticks.load(tmp_path / "one.npz")
    assert (loaded.best, list(loaded.notes)) == (found.best, list(found.notes))
    assert loaded.predictions.keys() == found.predictions.keys()


def test_large_data_are_cut_by_size_and_a_note_says_so(mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_ROWS", 200)
    monkeypatch.setattr("stages.evaluation.yardsticks.features.MOST_COLUMNS", 20)
    found, _ = fitted(tmp_path, (IMAGE,), of_classes(mixture[1]), [mixture[0][3][1]], mixture[1])
    assert found.notes == [
        "the simple models learned from 200 of 240 training rows",
        "the trees learned from the 20 of 256 columns that each tell most",
    ]


def test_trees_that_would_take_too_long_are_left_out(mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "BUDGET", 1e-9)
    found, _ = fitted(tmp_path, (NUMBERS,), of_classes(mixture[1]), [mixture[0][0][1]], mixture[1])
    assert list(found.predictions) == ["constant", "linear"]
    assert found.notes == ["so many classes would take boosted trees too long"]


@pytest.mark.parametrize("rows", [5, 12])
def test_a_few_rows_suffice(tmp_path, rows):
    x = DRAW.normal(size=(rows, 3)).astype(np.float32)
    x[:, 2] = np.nan
    y = np.arange(rows) % 2
    found, truth = fitted(tmp_path, (NUMBERS,), of_classes(y, "xy"), [x], y)
    assert {len(predictions) for predictions in found.predictions.values()} == {len(truth)}


def test_rows_of_one_class_are_answered_with_it(tmp_path):
    """As a sample of rows may be."""
    y = np.zeros(50, np.int64)
    x = DRAW.normal(size=(50, 2)).astype(np.float32)
    found, truth = fitted(tmp_path, (NUMBERS,), of_classes(y, "xy"), [x], y)
    assert {accuracy(predictions, truth) for predictions in found.predictions.values()} == {1}


def test_codes_that_no_training_row_has_are_no_fault(tmp_path):
    y, codes, words = np.arange(100) % 2, np.full((100, 1), 2, np.int32), np.full((100, 4), 3, np.int32)
    codes[60:], words[60:] = 9, 77
    found, _ = fitted(tmp_path, (CATEGORIES, TEXT), of_classes(y, "xy"), [codes, words], y)
    assert all(np.isfinite(predictions).all() for predictions in found.predictions.values())
