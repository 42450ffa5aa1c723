"""The messages for each fault, quarantined rows, and the report."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from stages import validate
from stages.core.errors import Refused, UserError
from stages.settings import sections
from stages.validation import report as findings
from stages.validation.expectations import target_class
from tests.support.failing import codes, failing, names
from tests.support.project import ROOT

LIMITS = dict.fromkeys(("quarantined", "rejected"), 0.1)
PLAIN = {"width": 40, "height": 30, "mode": "RGB", "frames": 1, "brightness": 120.5, "contrast": 50.25}


def row(number, label="cat", split=None, sample=None, **facts):
    """One row of a table; equal `sample`s are the same picture."""
    sample = str(number) if sample is None else sample
    return {
        "_id": hashlib.sha256(sample.encode()).hexdigest(),
        "_split": split,
        "_source": f"{label}/{number}.png",
        "image": b"never read",
        "label": label,
        **{f"image.{name}": value for name, value in (PLAIN | facts).items()},
    }


def plenty(*others):
    """Twenty valid rows, ten of each of two classes, then the others."""
    return [row(number, "cat" if number < 10 else "dog") for number in range(20)] + list(others)


SCHEMA = pa.schema(
    {name: pa.string() for name in ("_id", "_split", "_source", "label", "image.mode")}
    | {"image": pa.binary(), **{f"image.{name}": pa.int64() for name in ("width", "height", "frames")}}
    | {f"image.{name}": pa.float64() for name in ("brightness", "contrast")}
)


@pytest.fixture
def check(tmp_path):
    """A function that validates rows and returns the report."""

    def run(rows, rejected=(), min_rows=5, limits=LIMITS, **columns):
        path = tmp_path / "table.parquet"
        parquet.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path)
        declared = sections.declared({"image": {"kind": "image"}}, {"label": {"kind": "class"}})
        suite = validate.build(declared, columns)
        return validate.check(validate.read(path, declared, suite), list(rejected), declared, suite, min_rows, limits)

    return run


def reasons(report):
    return [reason for faults in report.quarantined.values() for reason in faults]


def warnings(report):
    return [sentence for word, sentence in report.notes if word == "warning"]


def test_a_valid_table_is_accepted_without_messages(check):
    report = check(plenty())
    assert (report.faults, report.notes, report.quarantined) == ([], [], {})
    assert report.verdict == "accepted: 20 rows, 0 quarantined, 0 rejected"
    assert findings.summary(report) == report.verdict


def test_an_empty_table_has_one_fault(check):
    assert check([], min_rows=0).faults == ["number of rows is 0, under 1"]


def test_too_few_rows_are_a_fault(check):
    assert check(plenty(), min_rows=21).faults == ["number of rows is 20, under 21"]


def test_rows_are_counted_without_the_quarantined(check):
    report = check(plenty(row(20, width=5)), image={"min_side": 8}, min_rows=21)
    assert report.faults == ["number of rows left is 20, under 21"]


def test_a_single_class_is_a_fault(check):
    assert check([row(number) for number in range(9)]).faults == ["number of classes in label is 1, under 2"]


def test_a_class_with_one_file_is_named_by_its_file(check):
    report = check(plenty(row(20, "cta")))
    assert report.faults == ["number of rows of the smallest class in label is 1, under 2 (cta/20.png)"]
    assert "expect_column_min_to_be_between(_peers): observed 1, allowed at least 2" in findings.summary(report)


def test_a_class_that_is_too_small_after_quarantine_is_a_fault(check):
    report = check(plenty(row(20, "eel"), row(21, "eel", mode="CMYK")))
    assert report.faults == ["number of rows of the smallest class in label is 1, under 2 (eel/20.png)"]


@pytest.mark.parametrize(
    ("facts", "options", "reason"),
    [
        ({"width": 8}, {"min_side": 32}, "image.width 8 is under 32"),
        ({"height": 20_000}, {}, "image.height 20,000 is over 10,000"),
        ({"mode": "CMYK"}, {"modes": ["RGB", "L"]}, "image.mode CMYK is not among RGB, L"),
        ({"frames": 3}, {}, "image.frames 3 is over 1"),
        ({"contrast": 0.0}, {}, "image.contrast 0 is not over 0"),
        ({"contrast": 1.5}, {"min_contrast": 2.0}, "image.contrast 1.5 is not over 2"),
        ({"width": None}, {}, "image.width is missing"),
    ],
)
def test_a_faulty_picture_is_quarantined_with_its_reason(check, facts, options, reason):
    sound = {"height": 40}
    report = check([row | {"image.height": 40} for row in plenty()] + [row(20, **sound | facts)], image=options)
    assert report.quarantined == {20: [reason]}
    assert report.faults == []
    assert report.notes == [("faulty", f"1 row: {reason} (cat/20.png)")]


def test_by_default_cmyk_is_quarantined_and_palettes_and_16_bits_are_not(check):
    report = check(plenty(row(20, mode="P"), row(21, mode="I;16B"), row(22, mode="CMYK"), row(23, mode="F")))
    assert list(report.quarantined) == [22, 23]


def test_unknown_and_missing_labels_are_quarantined(check):
    report = check(plenty(row(20, "dgo"), row(21) | {"label": None}), label={"labels": ["cat", "dog"]})
    assert report.quarantined == {20: ["label dgo is not among cat, dog"], 21: ["label is missing"]}
    assert report.faults == []


def test_all_copies_of_a_picture_with_two_classes_are_quarantined(check):
    report = check(
        plenty(row(20, "cat", sample="x"), row(21, "dog", sample="x"), row(22, "dog", sample="x")),
        limits={"quarantined": 0.2, "rejected": 0.0},
    )
    assert report.quarantined == {key: ["number of labels of this sample is 2, over 1"] for key in (20, 21, 22)}


def test_labels_that_differ_only_in_form_are_a_warning(check):
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    some = [(composed, 3), (apart, 2), ("New York", 4), ("new york ", 2), ("NewYork", 1), ("C", 2), ("C#", 2)]
    labels = [label for label, rows in some for _ in range(rows)]
    report = check([row(number, label) for number, label in enumerate(labels)], label={"min_rows": 1})
    assert not report.failed and not report.quarantined
    (found,) = (each for each in report.findings if each.column == "labels")
    assert (found.success, found.severity, found.observed) == (False, "warning", 5)
    named = f"'New York' (4) and 'NewYork' (1) and 'new york ' (2); {apart!r} (2) and {composed!r} (3)"
    assert [named in sentence for sentence in warnings(report)] == [True]
    assert not [found for found in check(plenty()).findings if found.column == "labels"]


def test_copies_and_samples_in_two_splits_are_warnings(check):
    report = check(
        plenty(
            *(row(20 + copy, split=split, sample="x") for copy, split in enumerate(("train", "test"))),
            *(row(22 + copy, sample="y") for copy in range(2)),
        )
    )
    assert (report.faults, report.quarantined) == ([], {})
    assert warnings(report) == [
        "4 rows: number of rows with this sample is 2, over 1 (cat/20.png, cat/21.png, cat/22.png, cat/23.png)",
        "2 rows: number of official splits with this sample is 2, over 1 (cat/20.png, cat/21.png)",
    ]


def test_sources_of_the_same_sample_are_listed_together(check):
    report = check(plenty(*(row(20 + copy, sample=sample) for copy, sample in enumerate("xyxy"))))
    assert "(cat/20.png, cat/22.png, cat/21.png, cat/23.png)" in warnings(report)[0]


def test_a_row_with_several_faults_has_several_reasons(check):
    report = check(plenty(row(20, width=5, height=6, mode="LAB")), image={"min_side": 8, "modes": ["RGB"]})
    assert report.quarantined[20] == [
        "image.width 5 is under 8",
        "image.height 6 is under 8",
        "image.mode LAB is not among RGB",
    ]


def test_over_the_limit_nothing_is_quarantined_and_the_table_is_refused(check):
    report = check(plenty(*(row(20 + more, mode="CMYK") for more in range(5))))
    assert report.faults == [
        "share of rows quarantined is 0.2, over 0.1 (cat/20.png, cat/21.png, cat/22.png, cat/23.png, cat/24.png)"
    ]
    assert len(reasons(report)) == 5


def test_a_share_equal_to_the_limit_is_allowed(check):
    assert (
        check(plenty(row(20, mode="F"), row(21, mode="F")), limits={"quarantined": 2 / 22, "rejected": 0}).faults == []
    )


def test_too_many_rejects_are_a_fault(check):
    rejected = [(f"cat/broken{number}.png", "empty: no bytes") for number in range(5)]
    report = check(plenty(), rejected)
    assert report.faults == [
        "share of samples that could not be read is 0.2, over 0.1 "
        "(cat/broken0.png, cat/broken1.png, cat/broken2.png, cat/broken3.png, cat/broken4.png)"
    ]


def test_an_unknown_split_and_a_missing_id_are_faults(check):
    report = check(plenty(row(20, split="dev"), row(21) | {"_id": None}))
    assert report.faults == [
        "share of rows with an id is 0.9545, under 1",
        "_split dev is not among train, val, test (cat/20.png)",
    ]


def test_a_missing_column_of_facts_is_a_fault(tmp_path):
    table = pa.Table.from_pylist(plenty(), SCHEMA).drop_columns(["image.frames"])
    parquet.write_table(table, tmp_path / "table.parquet")
    declared = sections.declared({"image": {"kind": "image"}}, {"label": {"kind": "class"}})
    suite = validate.build(declared, {})
    rows = validate.read(tmp_path / "table.parquet", declared, suite)
    assert "image" not in rows  # the pictures themselves are never loaded
    assert validate.check(rows, [], declared, suite, 5, LIMITS).faults == ["image.frames is not in the table"]


def test_a_table_without_its_own_columns_is_an_error(tmp_path):
    parquet.write_table(pa.Table.from_pylist(plenty(), SCHEMA).drop_columns(["_id"]), tmp_path / "table.parquet")
    declared = sections.declared({"image": {"kind": "image"}}, {"label": {"kind": "class"}})
    with failing(UserError, "data-table-outdated", "'_id'"):
        validate.read(tmp_path / "table.parquet", declared, [])


def test_faults_of_rows_are_those_of_column_map_expectations(check, monkeypatch):
    pattern = ("expect_column_values_to_match_regex", {"column": "label", "regex": "^c"})
    mean = ("expect_column_mean_to_be_between", {"column": "image.width", "max_value": 39})
    monkeypatch.setattr(target_class, "expectations", lambda column, options: [pattern, mean])
    report = check(plenty(), limits={"quarantined": 1.0, "rejected": 0.0})
    assert reasons(report) == ["label dog is not of the form ^c"] * 10
    assert report.faults == ["image.width 40 is over 39"]


class Tags(HTMLParser):
    """The names of all elements and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE = '<script src="https://evil.example/x.js">'


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A folder to run the stage in, with the inputs that DVC lists for it, and without network access."""

    def folder(name, rows, rejected=(), **limits):
        here = tmp_path / name
        here.mkdir()
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), here / "table.parquet")
        with (here / "rejects.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("source", "reason"), *rejected])
        shutil.copy(ROOT / "dvc.yaml", here)
        tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        tree["schema"] = {"features": {"image": "image"}, "target": {"label": "class"}}
        tree["validate"] |= {"min_rows": 5, "max_quarantined": 0.1, "max_rejected": 0.1, "columns": {}} | limits
        (here / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        monkeypatch.chdir(here)
        return here

    def refuse(*_):
        raise AssertionError("a stage must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return folder


PATHS = [Path(name) for name in ("table.parquet", "rejects.csv", "reports/validation", "quarantine.csv")]
OPTIONS = map("--{}={}".format, ("table", "rejects", "validation", "quarantine"), PATHS)


def files(here):
    found = [here / "quarantine.csv", *sorted((here / "reports/validation").iterdir())]
    return {path.name: path.read_bytes() for path in found}


def test_an_accepted_table_has_a_report_and_a_quarantine(stage, capsys):
    here = stage(
        "good",
        plenty(row(20, width=5, frames=2)),
        [("cat/b.png", "empty: no bytes")],
        columns={"image": {"min_side": 8}},
    )
    validate.main(*PATHS)
    assert capsys.readouterr() == (
        "accepted: 21 rows, 1 quarantined, 1 rejected\n"
        "  faulty: 1 row: image.width 5 is under 8 (cat/20.png)\n"
        "  faulty: 1 row: image.frames 2 is over 1 (cat/20.png)\n",
        "",
    )
    with (here / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line == {
        "id": row(20)["_id"],
        "source": "cat/20.png",
        "reasons": "image.width 5 is under 8; image.frames 2 is over 1",
    }
    report = json.loads((here / "reports/validation/validation.json").read_text(encoding="utf-8"))
    assert [report[key] for key in ("outcome", "rows", "quarantined", "rejected", "faults")] == [
        "accepted",
        21,
        1,
        1,
        [],
    ]
    (width,) = (each for each in report["expectations"] if each["column"] == "image.width" and each["kwargs"])
    assert width == {
        "name": "expect_column_values_to_be_between",
        "column": "image.width",
        "kwargs": {"min_value": 8, "max_value": 10000},
        "success": False,
        "observed": [5],
        "unexpected_count": 1,
        "severity": "critical",
        "sources": ["cat/20.png"],
    }


def test_a_refused_table_has_a_report_with_reproducible_bytes(stage, capsys):
    rows = plenty(
        row(20, "cta"), *(row(21 + more, mode=mode, split="train") for more, mode in enumerate(("F", "LAB", "F")))
    )
    rows[0] |= {"_source": HOSTILE}
    here = stage("first", rows)
    with failing(Refused, "data-refused", "number of rows of the smallest class"):
        validate.main(*PATHS)
    printed = capsys.readouterr().out
    there = stage("second", rows)
    again = subprocess.run(
        [sys.executable, "-m", "stages.validate", *OPTIONS],
        cwd=there,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
    )
    assert (again.returncode, again.stdout) == (3, printed), again.stderr
    assert (again.stderr.count("\n"), codes(again.stderr)) == (1, ["data-refused"])
    names(again.stderr, "reports/validation/index.html")
    assert files(there) == files(here)
    assert set(files(here)) == {"quarantine.csv", "index.html", "validation.json", "great_expectations.json"}
    assert not list(here.rglob(".*"))


def test_the_page_loads_no_file_and_escapes_names(stage):
    here = stage(
        "page", plenty(row(20, HOSTILE, mode=HOSTILE), row(21, HOSTILE), row(22, HOSTILE)), [(HOSTILE, HOSTILE)]
    )
    validate.main(*PATHS)
    page = (here / "reports/validation/index.html").read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(page)
    assert "&lt;script src=" in page
    assert not {"script", "link", "img", "iframe", "object", "base"} & parser.tags
    assert not {"src", "href"} & parser.attributes
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert page.index("<h1") < page.index("Expectations") < page.index("Rows by label")


def test_reports_on_many_faults_stay_small(stage):
    here = stage("much", [row(number, str(number % 2), mode="F") for number in range(3000)])
    with failing(Refused, "data-refused"):
        validate.main(*PATHS)
    assert all(len(content) < 60_000 for name, content in files(here).items() if name != "quarantine.csv")
    assert (here / "quarantine.csv").read_text(encoding="utf-8").count("\n") == 3001


def test_an_empty_table_is_refused_with_a_report(stage):
    here = stage("empty", [])
    with failing(Refused, "data-refused", "number of rows is 0, under 5"):
        validate.main(*PATHS)
    assert json.loads((here / "reports/validation/validation.json").read_text(encoding="utf-8"))["outcome"] == "refused"
