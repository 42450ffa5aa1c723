"""The report of a run: its content and order, the escaping of names, and its layout in a real browser."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report import charts
from flows.report import page as report
from stages.core.errors import UserError
from stages.settings import params
from tests.support.browser import chromium
from tests.support.project import Clone

settings.register_profile("here", derandomize=True, deadline=None, database=None)  # the same on every machine
settings.load_profile("here")
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}
HOSTILE = '<script src="https://example.org/x.js"></script> | "a" & [b](https://example.org) \\'
WIDTHS = (390, 1440)


class Page(HTMLParser):
    """A page's elements and text. `open`: elements without an end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


class Outputs:
    """The outputs of a clone, some of them replaced."""

    def __init__(self, clone: Clone, folder: Path) -> None:
        named = params.paths(clone.folder / "dvc.yaml")
        self.paths = {name: str(clone.folder / path) for name, path in named.items()}
        self.folder = folder
        self.change("verdict")

    def change(self, name: str, inside: str = "", **keys: object) -> None:
        """Replace top-level values of a report."""
        old = Path(self.paths[name]) / inside
        new = self.folder / name / (inside or old.name)
        new.parent.mkdir(exist_ok=True)
        new.write_text(json.dumps(json.loads(old.read_text()) | keys))
        self.paths[name] = str(new.parent if inside else new)

    def read(self, name: str) -> dict[str, object]:
        return json.loads(Path(self.paths[name]).read_text())

    def page(self) -> Page:
        return Page(report.write(self.paths).read_text(encoding="utf-8"))

    def card(self) -> str:
        report.write(self.paths)
        return (self.folder / "verdict" / report.CARD).read_text(encoding="utf-8")


@pytest.fixture
def outputs(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished.folder)
    return Outputs(finished, tmp_path)


def criterion(name, holds=True, **keys):
    about = {"against the champion": "champion", "control": "control"}.get(name.partition(": ")[0], "threshold")
    values = {
        "about": about,
        "name": name,
        "bound": "at least 0.97",
        "value": 0.98,
        "holds": holds,
        "reason": "" if holds else "bad",
    }
    return values | {"interval": [0.97, 0.99], "note": "", "limits": [0.97, None]} | keys


def test_a_run_prints_the_path_of_its_report(finished):
    assert (finished.folder / ".output").read_text().splitlines()[-1] == "the report of this run: reports/index.html"
    assert finished.run("git", "status", "--porcelain", "reports") == ""


def test_the_page_is_complete_and_shows_every_criterion(finished):
    page = Page((finished.folder / "reports/index.html").read_text(encoding="utf-8"))
    verdict = json.loads((finished.folder / "reports/verdict.json").read_text())
    assert page.open == []
    for each in verdict["criteria"]:
        shown = each["part"][1] if each["part"] else each["name"]
        assert shown.rpartition(": ")[2] in page.text
        assert each["bound"] in page.text or each["name"].startswith("control: ")
    for words in (verdict["release"], "1,797 rows", "latency", "loss", "Learning", "Lineage", "no champion yet"):
        assert words in page.text
    assert {"confusion", "reliability", "worst mistakes"} <= {attributes.get("alt") for _, attributes in page.elements}
    drawn = 9 + sum(each["about"] == "slice" for each in verdict["criteria"])
    assert len([tag for tag, attributes in page.elements if attributes.get("class") == "drawn"]) == drawn


def test_the_page_fetches_nothing_and_its_links_exist(finished):
    text = (finished.folder / "reports/index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"url\(|@import|srcset", text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert (finished.folder / "reports" / str(attributes["href"])).is_file()
    assert "default-src 'none'" in text


def test_a_refusal_begins_with_its_reasons(outputs):
    reasons = ["recall[7] is 0.7, which is not at least 0.97", "one sample takes longer than gate.p99_ms allows"]
    criteria = [criterion("accuracy"), *(criterion(reason.split()[0], False, reason=reason) for reason in reasons)]
    outputs.change("verdict", verdict="refuse", criteria=criteria)
    text = outputs.page().text
    assert text.index("Refused") < text.index("2 of 3 criteria do not hold, judged on") < text.index(reasons[0])
    assert text.index(reasons[1]) < text.index("Criteria")
    card = outputs.card()
    assert card.startswith("# Refused: digits, release ")
    assert all(f"\n- {reason}\n" in card for reason in reasons)


def test_the_champion_is_compared_with_the_candidate(outputs):
    note = "381 test samples do not tell a margin of 0.001: a margin of 0.02 would do"
    against = criterion("against the champion: accuracy", value=-0.0012, limits=[-0.02, None], interval=[-0.01, None])
    outputs.change(
        "verdict", champion="abc answered 381 test samples", criteria=[criterion("f1"), against | {"note": note}]
    )
    page = outputs.page()
    assert "abc answered 381 test samples, and so did this one" in page.text
    assert "\N{MINUS SIGN}0.0012" in page.text and "at least \N{MINUS SIGN}0.01" in page.text
    assert page.text.index(note) < page.text.index("Criteria")
    assert "champion" in page.text.partition("Against the champion")[2]


def test_controls_are_shown_if_there_are_any(outputs):
    outputs.change("verdict", controls=[])
    assert "Controls" not in outputs.page().text
    control = {"name": "noise", "what": "noise for weights", "expected": "threshold", "outcome": "passed"}
    comment = "accuracy: {min: 0.05} would pass it: raise it"
    judged = [criterion("accuracy"), criterion("control: noise", False, reason=comment)]
    controls = [control | {"holds": False, "told": comment, "scored": {"accuracy": 0.1, "f1": None}}]
    outputs.change("verdict", verdict="refuse", criteria=judged, controls=controls)
    page, card = outputs.page(), outputs.card()
    assert "control: noise" not in page.text and page.text.index(comment) < page.text.index("Criteria")
    for words in (*control.values(), comment, "accuracy 0.1"):
        assert words in page.text.partition("Controls")[2]
        assert words in card.partition("Controls")[2]


def test_drifted_columns_come_first_and_are_drawn_with_the_champions(outputs):
    moved = criterion("image.contrast: as the champion's", False, about="data", bound="at most 0.2", value=0.4)
    same = criterion("label: test as train", about="data", bound="at most 0.2", value=0.01)
    few = criterion("test as train", about="data", value=None, note="test and train are not compared: 9 rows")
    outputs.change("released_statistics", **outputs.read("statistics"))
    outputs.change("verdict", verdict="refuse", criteria=[criterion("accuracy"), same, moved, few])
    page, card = outputs.page(), outputs.card()
    distances = page.text.partition("Distances")[2]
    assert distances.index("the line is the champion's") < distances.index("Test and train are not compared: 9 rows.")
    assert distances.index("image.contrast") < distances.index("as the champion's 0.4") < distances.index("label")
    assert (
        page.text.index("bad") < page.text.index("Criteria")
        and "as the champion's" not in distances.partition("label")[2]
    )
    drawn = [attributes for tag, attributes in page.elements if attributes.get("class") == "histogram"]
    assert len(drawn) == 3 and "image.contrast, from" in str(drawn[0]["aria-label"])
    assert "| image.contrast: as the champion's | at most 0.2 | 0.4 | **does not hold** |" in card
    assert {"labels to look at", "samples unlike any other"} <= {
        attributes.get("alt") for _, attributes in page.elements
    }


def of_slice(value, accuracy, holds=True, **keys):
    part = {"part": ["label", value], "rows": 40, "about": "slice", "value": accuracy, "limits": [0.9, None]}
    return criterion(f"accuracy where label is {value}", holds) | part | keys


def test_slices_are_shown_worst_first_and_folded_beyond_a_few(outputs):
    many = [of_slice(f"label{number:02d}", 0.91 + number / 1000) for number in range(14)]
    bad = of_slice("odd", 0.5, False, reason="where label is odd (40 test rows), accuracy is 0.5000: mend them")
    against = of_slice("label03", -0.01, limits=[-0.1, None])
    against |= {"name": "against the champion: accuracy where label is label03", "note": "40 test samples do not tell"}
    small = of_slice("rare", None, name="where label is rare", limits=None, rows=3, note="the 3 rows are not judged")
    gone = of_slice("lost", None, name="against", limits=None, rows=0, note="no test row is left where label is lost")
    outputs.change("verdict", verdict="refuse", criteria=[criterion("f1"), *many, bad, against, small, gone])
    page, card = outputs.page(), outputs.card()
    assert page.text.index(gone["note"]) < page.text.index("Criteria") < page.text.index("Slices")
    assert "where label" not in page.text.partition("Criteria")[2].partition("Slices")[0]
    sliced = page.text.partition("Slices")[2]
    places = [sliced.index(word) for word in ("odd", "mend them", "label00", "label10", "3 more", "label11", "label13")]
    assert places == sorted(places)
    after = ("label13", "accuracy by label, against the champion", "1 of 1 have", small["note"], gone["note"])
    assert [sliced.index(words) for words in after] == sorted(sliced.index(words) for words in after)
    for words in ("accuracy by label", "| odd | 40 | 0.5 |", "**does not hold**", small["note"], gone["note"]):
        assert words in card.partition("Slices")[2]


def test_of_refused_data_only_the_faults_are_shown(outputs):
    outputs.change("validation", "validation.json", outcome="refused", faults=["12 rows: image.width 8 is under 9"])
    text = outputs.page().text
    assert text.index("Data refused") < text.index("12 rows: image.width 8 is under 9")
    assert "Criteria" not in text and "Lineage" not in text
    assert "- 12 rows: image.width 8 is under 9\n" in outputs.card()


def test_names_from_the_data_are_escaped(outputs):
    outputs.change("verdict", criteria=[criterion(HOSTILE, False, bound=HOSTILE, reason=HOSTILE, note=HOSTILE)])
    outputs.change("validation", "validation.json", warnings=[HOSTILE])
    words = {"rows": 2, "missing": 0, "counts": {HOSTILE: 1, "a": 1}, "others": 0}
    outputs.change("statistics", **{HOSTILE: {"train": words, "test": words}})
    outputs.change("metrics", test={f"recall[{HOSTILE}]": 0.5, HOSTILE: 0.5})
    schema = outputs.read("schema")
    schema["target"]["fitted"]["labels"][0] = schema["features"][0]["name"] = HOSTILE
    outputs.change("schema", **schema)
    page = outputs.page()
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(HOSTILE) >= 7
    card = outputs.card()
    assert "<script" not in card and "](https" not in card
    (line,) = [line for line in card.splitlines() if "0.97 to 0.99" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 6


def test_without_a_verdict_there_is_no_report(fresh):
    assert "error: nothing has been judged yet: run `millrace run`" in fresh.millrace("report", code=1)
    assert not (fresh.folder / "reports/index.html").exists()


def test_a_verdict_on_another_release_is_an_error(outputs):
    outputs.change("verdict", release="0123456789ab")
    with pytest.raises(UserError, match="the verdict is on 0123456789ab, not on the exported model"):
        report.write(outputs.paths)


finite = st.floats(-1e6, 1e6)


@given(finite, st.none() | finite, st.none() | finite, st.none() | finite, st.none() | finite, st.booleans())
def test_drawn_positions_are_in_the_order_of_the_numbers(value, low, high, least, most, zero):
    drawn = charts.interval(value, (low, high), (least, most), zero=zero)
    assert (drawn is None) == (least is None and most is None)
    if drawn:
        pairs = [(value, drawn.value), (least, drawn.least), (most, drawn.most), (0.0, drawn.zero)]
        defined = [(x, at) for x, at in pairs if x is not None and at is not None]
        assert all(0 <= at <= 100 for _, at in [*defined, (0, drawn.low), (0, drawn.high)])
        assert [at for _, at in sorted(defined)] == sorted(at for _, at in defined)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_curves_have_a_few_ticks_and_stay_within_the_drawing(column):
    drawn = charts.chart("Loss", {"validation": [*column, math.nan]})
    assert len(drawn.ticks) <= charts.MOST_TICKS + 1
    for point in drawn.curves["validation"].split():
        assert all(0 <= float(x) <= 100 for x in point.split(","))


def test_a_curve_without_finite_values_is_not_drawn():
    assert charts.chart("Loss", {"validation": [math.nan, math.inf]}) is None


@pytest.mark.parametrize("light", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser_the_page_fits_without_errors_or_requests(finished, tmp_path, width, light):
    with chromium(tmp_path) as browser:
        browser.open(finished.folder / "reports/index.html", width, light)
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value("[...document.images].every(picture => picture.naturalWidth > 0)")
        assert browser.value("document.querySelector('h1').textContent") == "Pass"
        assert len(browser.screenshot()) > 50_000


def test_the_browser_reports_errors_and_requests(tmp_path):
    bad = '<img src="http://127.0.0.1:9/x.png"><script>nothing.at.all</script><p style="width: 2000px">'
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><html><body>{bad}</body></html>")
    with chromium(tmp_path) as browser:
        browser.open(tmp_path / "bad.html", 390, "light")
        assert len(browser.errors) >= 2
        assert "http://127.0.0.1:9/x.png" in browser.requests
        assert browser.value("document.documentElement.scrollWidth") > 390
