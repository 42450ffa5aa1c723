"""The page of a run: what it says and in which order, that it trusts no name, and how it stands in a real browser."""

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
    """A page's elements and text, and what stands open at its end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
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
            self.said += data


class Outputs:
    """The outputs of a clone, with other reports in the place of some."""

    def __init__(self, clone: Clone, folder: Path) -> None:
        named = params.paths(clone.folder / "dvc.yaml")
        self.paths = {name: str(clone.folder / path) for name, path in named.items()}
        self.folder = folder
        self.change("verdict")

    def change(self, name: str, inside: str = "", **keys: object) -> None:
        """Write a report anew, with other values at the top of it."""
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
    said = {
        "about": about,
        "name": name,
        "bound": "at least 0.97",
        "value": 0.98,
        "holds": holds,
        "reason": "" if holds else "bad",
    }
    return said | {"interval": [0.97, 0.99], "note": "", "limits": [0.97, None]} | keys


def test_a_run_ends_with_where_its_page_lies(finished):
    assert (finished.folder / ".output").read_text().splitlines()[-1] == "the page of this run: reports/index.html"
    assert finished.run("git", "status", "--porcelain", "reports") == ""


def test_the_page_is_whole_and_says_every_criterion(finished):
    page = Page((finished.folder / "reports/index.html").read_text(encoding="utf-8"))
    verdict = json.loads((finished.folder / "reports/verdict.json").read_text())
    assert page.open == []
    for each in verdict["criteria"]:
        shown = each["part"][1] if each["part"] else each["name"]
        assert shown.rpartition(": ")[2] in page.said
        assert each["bound"] in page.said or each["name"].startswith("control: ")
    for words in (verdict["release"], "1,797 rows", "latency", "loss", "Learning", "Lineage", "no champion yet"):
        assert words in page.said
    assert {"confusion", "reliability", "worst mistakes"} <= {said.get("alt") for _, said in page.elements}
    drawn = 7 + sum(each["about"] == "slice" for each in verdict["criteria"])
    assert len([tag for tag, said in page.elements if said.get("class") == "drawn"]) == drawn


def test_nothing_is_fetched_and_every_link_leads_somewhere(finished):
    text = (finished.folder / "reports/index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"url\(|@import|srcset", text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for _, said in page.elements:
        assert (said.get("src") or "data:").startswith("data:image/png;base64,") or "src" not in said
        assert not any(name.startswith("on") for name in said)
        if "href" in said:
            assert (finished.folder / "reports" / str(said["href"])).is_file()
    assert "default-src 'none'" in text


def test_a_refusal_leads_with_its_reasons(outputs):
    reasons = ["recall[7] is 0.7, which is not at least 0.97", "one sample takes longer than gate.p99_ms allows"]
    criteria = [criterion("accuracy"), *(criterion(reason.split()[0], False, reason=reason) for reason in reasons)]
    outputs.change("verdict", verdict="refuse", criteria=criteria)
    said = outputs.page().said
    assert said.index("Refused") < said.index("2 of 3 criteria do not hold, judged on") < said.index(reasons[0])
    assert said.index(reasons[1]) < said.index("Criteria")
    card = outputs.card()
    assert card.startswith("# Refused: digits, release ")
    assert all(f"\n- {reason}\n" in card for reason in reasons)


def test_the_champion_stands_beside_its_challenger(outputs):
    note = "381 test samples do not tell a margin of 0.001: a margin of 0.02 would do"
    against = criterion("against the champion: accuracy", value=-0.0012, limits=[-0.02, None], interval=[-0.01, None])
    outputs.change(
        "verdict", champion="abc answered 381 test samples", criteria=[criterion("f1"), against | {"note": note}]
    )
    page = outputs.page()
    assert "abc answered 381 test samples, and so did this one" in page.said
    assert "\N{MINUS SIGN}0.0012" in page.said and "at least \N{MINUS SIGN}0.01" in page.said
    assert page.said.index(note) < page.said.index("Criteria")
    assert "champion" in page.said.partition("Against the champion")[2]


def test_controls_are_shown_where_there_are_any(outputs):
    outputs.change("verdict", controls=[])
    assert "Controls" not in outputs.page().said
    control = {"name": "noise", "what": "noise for weights", "expected": "threshold", "outcome": "passed"}
    told = "accuracy: {min: 0.05} would pass it: raise it"
    judged = [criterion("accuracy"), criterion("control: noise", False, reason=told)]
    controls = [control | {"holds": False, "told": told, "scored": {"accuracy": 0.1, "f1": None}}]
    outputs.change("verdict", verdict="refuse", criteria=judged, controls=controls)
    page, card = outputs.page(), outputs.card()
    assert "control: noise" not in page.said and page.said.index(told) < page.said.index("Criteria")
    for words in (*control.values(), told, "accuracy 0.1"):
        assert words in page.said.partition("Controls")[2]
        assert words in card.partition("Controls")[2]


def test_data_that_have_moved_come_first_beside_the_champions(outputs):
    moved = criterion("image.contrast: as the champion's", False, about="data", bound="at most 0.2", value=0.4)
    same = criterion("label: test as train", about="data", bound="at most 0.2", value=0.01)
    few = criterion("test as train", about="data", value=None, note="test and train are not compared: 9 rows")
    outputs.change("released_statistics", **outputs.read("statistics"))
    outputs.change("verdict", verdict="refuse", criteria=[criterion("accuracy"), same, moved, few])
    page, card = outputs.page(), outputs.card()
    told = page.said.partition("Distances")[2]
    assert told.index("the line is the champion's") < told.index("Test and train are not compared: 9 rows.")
    assert told.index("image.contrast") < told.index("as the champion's 0.4") < told.index("label")
    assert (
        page.said.index("bad") < page.said.index("Criteria") and "as the champion's" not in told.partition("label")[2]
    )
    drawn = [said for tag, said in page.elements if said.get("class") == "histogram"]
    assert len(drawn) == 3 and "image.contrast, from" in str(drawn[0]["aria-label"])
    assert "| image.contrast: as the champion's | at most 0.2 | 0.4 | **does not hold** |" in card
    assert {"labels to look at", "samples unlike any other"} <= {said.get("alt") for _, said in page.elements}


def of_slice(value, accuracy, holds=True, **keys):
    part = {"part": ["label", value], "rows": 40, "about": "slice", "value": accuracy, "limits": [0.9, None]}
    return criterion(f"accuracy where label is {value}", holds) | part | keys


def test_slices_are_shown_the_worst_first_and_folded_beyond_a_few(outputs):
    many = [of_slice(f"label{number:02d}", 0.91 + number / 1000) for number in range(14)]
    bad = of_slice("odd", 0.5, False, reason="where label is odd (40 test rows), accuracy is 0.5000: mend them")
    against = of_slice("label03", -0.01, limits=[-0.1, None])
    against |= {"name": "against the champion: accuracy where label is label03", "note": "40 test samples do not tell"}
    small = of_slice("rare", None, name="where label is rare", limits=None, rows=3, note="the 3 rows are not judged")
    gone = of_slice("lost", None, name="against", limits=None, rows=0, note="no test row is left where label is lost")
    outputs.change("verdict", verdict="refuse", criteria=[criterion("f1"), *many, bad, against, small, gone])
    page, card = outputs.page(), outputs.card()
    assert page.said.index(gone["note"]) < page.said.index("Criteria") < page.said.index("Slices")
    assert "where label" not in page.said.partition("Criteria")[2].partition("Slices")[0]
    sliced = page.said.partition("Slices")[2]
    places = [sliced.index(word) for word in ("odd", "mend them", "label00", "label10", "3 more", "label11", "label13")]
    assert places == sorted(places)
    after = ("label13", "accuracy by label, against the champion", "1 of 1 have", small["note"], gone["note"])
    assert [sliced.index(words) for words in after] == sorted(sliced.index(words) for words in after)
    for words in ("accuracy by label", "| odd | 40 | 0.5 |", "**does not hold**", small["note"], gone["note"]):
        assert words in card.partition("Slices")[2]


def test_refused_data_are_all_that_is_said(outputs):
    outputs.change("validation", "validation.json", outcome="refused", faults=["12 rows: image.width 8 is under 9"])
    said = outputs.page().said
    assert said.index("Data refused") < said.index("12 rows: image.width 8 is under 9")
    assert "Criteria" not in said and "Lineage" not in said
    assert "- 12 rows: image.width 8 is under 9\n" in outputs.card()


def test_no_name_is_trusted(outputs):
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
    assert page.said.count(HOSTILE) >= 7
    card = outputs.card()
    assert "<script" not in card and "](https" not in card
    assert all(
        len(re.findall(r"(?<!\\)\|", line)) == 6 for line in card.splitlines() if "recall" in line and "0.97" in line
    )


def test_without_a_verdict_there_is_no_page(fresh):
    assert "error: nothing was judged yet: `millrace run` gives a verdict" in fresh.millrace("report", code=1)
    assert not (fresh.folder / "reports/index.html").exists()


def test_a_verdict_on_other_bytes_is_not_shown(outputs):
    outputs.change("verdict", release="0123456789ab")
    with pytest.raises(UserError, match="the verdict is on 0123456789ab, not on what is exported"):
        report.write(outputs.paths)


finite = st.floats(-1e6, 1e6)


@given(finite, st.none() | finite, st.none() | finite, st.none() | finite, st.none() | finite, st.booleans())
def test_what_is_drawn_lies_as_the_numbers_do(value, low, high, least, most, zero):
    drawn = charts.interval(value, (low, high), (least, most), zero=zero)
    assert (drawn is None) == (least is None and most is None)
    if drawn:
        pairs = [(value, drawn.value), (least, drawn.least), (most, drawn.most), (0.0, drawn.zero)]
        known = [(x, at) for x, at in pairs if x is not None and at is not None]
        assert all(0 <= at <= 100 for _, at in [*known, (0, drawn.low), (0, drawn.high)])
        assert [at for _, at in sorted(known)] == sorted(at for _, at in known)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_curves_have_a_few_marks_and_stay_within(column):
    drawn = charts.chart("Loss", {"validation": [*column, math.nan]})
    assert len(drawn.ticks) <= charts.MOST_TICKS + 1
    for point in drawn.curves["validation"].split():
        assert all(0 <= float(x) <= 100 for x in point.split(","))


def test_what_never_was_a_number_is_not_drawn():
    assert charts.chart("Loss", {"validation": [math.nan, math.inf]}) is None


@pytest.mark.parametrize("light", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser_it_fits_says_no_error_and_fetches_nothing(finished, tmp_path, width, light):
    with chromium(tmp_path) as browser:
        browser.open(finished.folder / "reports/index.html", width, light)
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value("[...document.images].every(picture => picture.naturalWidth > 0)")
        assert browser.value("document.querySelector('h1').textContent") == "Pass"
        assert len(browser.picture()) > 50_000


def test_the_browser_would_tell(tmp_path):
    bad = '<img src="http://127.0.0.1:9/x.png"><script>nothing.at.all</script><p style="width: 2000px">'
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><html><body>{bad}</body></html>")
    with chromium(tmp_path) as browser:
        browser.open(tmp_path / "bad.html", 390, "light")
        assert len(browser.errors) >= 2
        assert "http://127.0.0.1:9/x.png" in browser.requests
        assert browser.value("document.documentElement.scrollWidth") > 390
