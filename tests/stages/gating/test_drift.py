"""Statistics of a data set, the distance between two, and the drift figures that name a column."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from scipy import stats

from stages import profile
from stages.core.errors import UserError
from stages.gating import drift
from stages.gating.evidence import DATA
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables import distributions, table
from stages.tables.arrays import SPLITS, create_split
from stages.tables.distributions import distance, of_numbers, of_words
from tests.support.failing import failing

settings.register_profile("here", derandomize=True, deadline=None, database=None)  # the same on every machine
settings.load_profile("here")
BOUNDS = drift.Bounds(max_distance=0.2, columns={}, train_test=0.2, min_rows=200)
SCHEMA = Schema(
    (Column("age", "number"), Column("town", "category"), Column("remark", "text"), Column("since", "timestamp")),
    Column("price", "target_number"),
)


def numbers(*values):
    return of_numbers(np.array(values, np.float64))


def words(text):
    return of_words((None if word == "-" else word, 1) for word in text.split())


@pytest.mark.parametrize(
    ("old", "new", "far", "moved"),
    [
        (numbers(1, 2, 3, 4), numbers(1, 2, 3, 4), 0.0, ""),
        (numbers(1, 2, 3, 4), numbers(5, 6, 7, 8), 1.0, "median 2 -> 6"),
        (numbers(1, 2, 3, 4), numbers(3, 4, 5, 6), 0.5, "median 2 -> 4"),
        (numbers(0, 0, 0, 1), numbers(0, 0, 0, 0), 0.25, "share of values below 1: 0.75 -> 1"),
        (numbers(1, 2, 3, 4), numbers(math.nan, 2, 3, math.nan), 0.5, "share of missing 0 -> 0.5"),
        (numbers(math.nan, math.nan, 3, 4), numbers(1, 1, 1, 1), 0.5, "share of missing 0.5 -> 0"),
        (numbers(math.nan, math.nan), numbers(math.nan), 0.0, ""),
        (words("a a b b"), words("b b a a"), 0.0, ""),
        (words("a a a b"), words("a b b c"), 0.5, "share of 'a' 0.75 -> 0.25"),
        (words("a b"), words("c d"), 1.0, "share of 'a' 0.5 -> 0"),
        (words("a a a a"), words("a a - -"), 0.5, "share of 'a' 1 -> 0.5"),
    ],
)
def test_a_distance_by_hand(old, new, far, moved):
    apart = distance(old, new)
    assert apart.value == pytest.approx(far)
    if far:
        assert apart.moved == moved


def test_words_and_numbers_have_no_distance():
    assert distance(numbers(1, 2), words("1 2")) is None
    assert distance(numbers(), numbers(1)) is None


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_the_distance_of_numbers_is_kolmogorov_and_smirnovs(decimals):
    draw = np.random.default_rng(0)
    old, new = draw.normal(0, 2, 3000).round(decimals), draw.gumbel(0.5, 2, 2000).round(decimals)
    exact = stats.ks_2samp(old, new).statistic
    assert distance(of_numbers(old), of_numbers(new)).value == pytest.approx(exact, abs=2 / distributions.QUANTILES)
    if decimals == 0:  # so few values that all are cuts
        assert distance(of_numbers(old), of_numbers(new)).value == pytest.approx(exact)


def test_words_beyond_the_most_frequent_are_counted_together():
    many = of_words((f"word {number}", 1) for number in range(1000))
    assert len(many.counts) == distributions.WORDS and many.others == 1000 - distributions.WORDS
    others = of_words((f"other {number}", 1) for number in range(1000))
    assert distance(many, others).value == 0.0  # both hold nothing but rare words
    assert distance(many, of_words([("word 7", 600), *((f"word {number}", 1) for number in range(400))])).value > 0.5


values = st.lists(st.none() | st.integers(0, 5) | st.floats(-1e6, 1e6), min_size=1)


@given(values, values)
def test_a_distance_lies_between_0_and_1_and_is_symmetric(old, new):
    for made in (
        lambda each: of_numbers(np.array(each, np.float64)),
        lambda each: of_words((None if value is None else f"{value:.0f}", 1) for value in each),
    ):
        there, back, itself = (distance(made(a), made(b)) for a, b in ((old, new), (new, old), (old, old)))
        assert 0 <= there.value <= 1 + 1e-9
        assert there.value == pytest.approx(back.value, abs=1e-9) and itself.value == 0


@pytest.mark.parametrize("labels", [2, 10, 50])
def test_chance_alone_makes_no_drift(labels):
    """Over a thousand pairs of the smallest splits that are judged."""
    draw = np.random.default_rng(labels)
    beyond = []
    for _ in range(500):
        kinds = draw.integers(0, labels, 400)
        numbers = draw.normal(size=400)
        of_kinds = [of_words((str(kind), 1) for kind in half) for half in (kinds[:200], kinds[200:])]
        of_both = [of_numbers(half) for half in (numbers[:200], numbers[200:])]
        beyond += [apart.value - apart.chance for apart in (distance(*of_kinds), distance(*of_both))]
    assert max(beyond) < BOUNDS.max_distance - 0.05 and abs(np.mean(beyond)) < 0.02


def row(number, draw, shift=0.0):
    return {
        "price": float(draw.normal(100, 10)),
        "age": None if number % 50 == 0 else float(draw.integers(20, 60) + shift),
        "town": str(draw.choice(["Ulm", "Bonn", "Jena"])),
        "remark": "a remark",
        "remark.length": 8 + number % 5,
        "remark.words": 2,
        "remark.script": "LATIN" if number % 10 else None,
        "since.year": 2000.0 + number // 50,
    }


@pytest.fixture
def described(tmp_path):
    """The statistics file of a table of 900 rows, three splits in turn."""

    def make(folder="here", row_group_size=100, **options):
        here = tmp_path / folder
        draw = np.random.default_rng(0)
        here.mkdir()
        types = pa.schema({name: pa.string() for name in ("town", "remark", "remark.script")})
        rows = [row(number, draw, **options) for number in range(900)]
        cells = pa.Table.from_pylist(rows)
        cells = cells.cast(pa.schema([types.field(f.name) if f.name in types.names else f for f in cells.schema]))
        parquet.write_table(cells, here / "table.parquet", row_group_size=row_group_size)
        for place, split in enumerate(SPLITS):
            create_split(here / "arrays" / split, np.arange(place, 900, 3), np.zeros(300), [])
        SCHEMA.dump(here / "schema.json")
        profile.main(here / "table.parquet", here / "arrays", here / "schema.json", here / "statistics.json")
        return here / "statistics.json"

    return make


def test_statistics_describe_each_column_by_its_facts_or_values(described):
    statistics = distributions.load(described())
    of_remarks = ["remark.length", "remark.words", "remark.script"]
    assert list(statistics) == ["price", "age", "town", *of_remarks, "since.year"]
    assert statistics["age"]["train"].rows == 300 and statistics["age"]["train"].missing == 6
    assert set(statistics["town"]["test"].counts) == {"Ulm", "Bonn", "Jena"}
    assert statistics["remark.script"]["train"].missing == 30


def test_the_bytes_do_not_depend_on_how_the_table_is_read(described, monkeypatch):
    whole = described().read_bytes()
    monkeypatch.setattr(table, "PIECE_BYTES", 1)
    assert described("pieces", row_group_size=7).read_bytes() == whole


def test_statistics_of_many_rows_use_a_sample(described, monkeypatch):
    monkeypatch.setattr(profile, "MOST", 100)
    statistics = distributions.load(described())
    assert {summary.rows for splits in statistics.values() for summary in splits.values()} == {100}
    years = statistics["since.year"]["train"].cuts
    assert (years[0], years[-1]) == (2000.0, 2017.0)  # evenly: from the first to the last


def figures(old, new, state="answers", bounds=BOUNDS):
    return {figure.name: figure for figure in drift.figures(old, new, state, bounds)}


def test_a_column_that_drifted_is_named(described):
    old, new = distributions.load(described()), distributions.load(described("later", shift=30.0))
    by_name = figures(old, new)
    moved = [name for name, figure in by_name.items() if not figure.note and figure.value > figure.most]
    assert moved == ["age: as the champion's"]
    assert by_name[moved[0]].about == DATA
    assert "age is not as in the champion's training rows: median 41 -> 71. " in by_name[moved[0]].reason
    accepted = drift.Bounds(0.2, {"age": 1.0}, 0.2, 200)
    assert all(figure.note or figure.value <= figure.most for figure in figures(old, new, bounds=accepted).values())


def test_a_test_split_that_differs_from_the_training_rows_is_named():
    train, test = words("a a a a b " * 100), words("a b b b b " * 100)
    figure = figures({}, {"label": {"train": train, "test": test}}, "none")["label: test as train"]
    assert figure.value == pytest.approx(0.6, abs=0.03) and figure.value > figure.most
    assert "label is not as in the training rows: share of 'a' 0.8 -> 0.2. " in figure.reason


def test_columns_that_are_gone_or_of_another_kind_are_noted(described):
    new = dict(distributions.load(described()))
    old = new | {"height": new["age"], "town": new["price"]}
    by_name = figures(old, new)
    note = "compared with the champion's, columns are gone: height; of another kind: town"
    assert by_name["columns: as the champion's"].note == note
    assert "town: as the champion's" not in by_name and "price: as the champion's" in by_name


@pytest.mark.parametrize("state", ["none", "itself"])
def test_without_another_champion_only_test_and_train_are_compared(described, state):
    new = distributions.load(described())
    assert {name.partition(": ")[2] for name in figures({}, new, state)} == {"test as train"}


def test_a_champion_without_statistics_and_too_few_rows_are_noted(described):
    new = distributions.load(described())
    assert "before statistics" in figures({}, new)["as the champion's"].note
    few = figures(new, new, bounds=drift.Bounds(0.2, {}, 0.2, 301))
    assert {name: figure.note.partition(": ")[2] for name, figure in few.items()} == dict.fromkeys(
        ("as the champion's", "test as train"), "300 rows are fewer than gate.drift.min_rows, 301"
    )


def test_a_damaged_statistics_file_is_an_error(tmp_path):
    path = tmp_path / "statistics.json"
    for text in ("{", "[]", '{"age": {"train": {"rows": 3}}}'):
        path.write_text(text)
        with failing(UserError, "champion-damaged", "`git checkout"):
            distributions.load(path)


def test_pictures_darker_than_the_champions_are_refused_by_name(done):
    """Through ingest, validate, prepare and profile."""
    from PIL import Image

    paths = {name: done.folder / path for name, path in params.paths(done.folder / "dvc.yaml").items()}
    released = distributions.load(paths["statistics"])
    for path in sorted((done.folder / "data/builtin/digits").rglob("*.png")):
        dark = done.folder / "data/raw/dark" / path.relative_to(done.folder / "data/builtin/digits")
        dark.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.point(lambda gray: gray // 2).save(dark)
    done.params(data={"path": "data/raw/dark"})
    done.run("dvc", "repro", "profile")
    by_name = figures(released, distributions.load(paths["statistics"]))
    moved = {name for name, figure in by_name.items() if figure.value > figure.most}
    assert moved == {"image.brightness: as the champion's", "image.contrast: as the champion's"}
    assert "median" in by_name["image.brightness: as the champion's"].reason
