"""The page of a validation: its content, the escaping of names, and its layout in a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from stages.validation import page as validation
from stages.validation.report import Finding, Report
from tests.support.browser import chromium

HOSTILE = '<script src="https://example.org/x.js"></script> | "a" & [b](https://example.org)'
MANY_LABELS = 50


def finding(name: str, column: str, success: bool, **keys: object) -> Finding:
    kwargs = {"column": column, **keys.pop("kwargs", {})}
    values = {"of_rows": False, "observed": 5, "sentence": f"{column} is bad"} | keys
    return Finding(name, kwargs, success=success, **values)


@pytest.fixture
def page() -> str:
    rows = pd.DataFrame(
        [
            {
                "_source": f"{HOSTILE}/{label}-{each}.png",
                "_split": None,
                "label": HOSTILE if label == 0 else f"label{label:02d}",
                "image.width": 20.0 + each,
                "image.height": 30,
                "image.mode": HOSTILE if each else "RGB",
            }
            for label in range(MANY_LABELS)
            for each in range(MANY_LABELS + 1 - label)
        ]
    )
    findings = [
        finding("expect_met", "image.height", True),
        finding("expect_few", "label", False, kwargs={"severity": "warning"}),
        finding("expect_all", HOSTILE, False, kwargs={"min_value": 8}),
    ]
    report = Report(len(rows), 25, {place: [HOSTILE, "also bad"] for place in range(23)}, findings, {})
    return validation.page(report, rows, [(HOSTILE, "empty: no bytes")] * 25, "label")


def test_the_page_names_faults_first_and_says_how_much_it_leaves_out(page):
    text = re.sub(r"<style>.*</style>|<[^>]+>", "", page, flags=re.DOTALL)
    expected = (
        *("Validation", "Refused", "1,325 rows, 23 quarantined, 25 rejected", "fault", "warning label is bad"),
        *("Expectations", "✗\N{NO-BREAK SPACE}warning", "at least 8", "expect_all", "✓", "expect_met"),
        *("Rows by label", "label01", "50", "10 others", "label49", "image.mode", "Columns"),
        *("Rows by official split", "(none) in every row", "image.width", "20", "70", "half of the rows up to"),
        *("image.height", "30 in every row", "Quarantined", "; also bad", "and 3 more"),
        *("Rejected: could not be read", "empty: no bytes", "and 5 more"),
    )
    at = 0
    for words in expected:
        assert words in text[at:], words
        at = text.index(words, at) + len(words)
    assert re.findall(r"<dt>label(\d+)", page) == [f"{label:02d}" for label in (*range(1, 20), *range(30, 50))]


def test_names_are_escaped_and_nothing_is_fetched(page):
    attributes = []
    parser = HTMLParser()
    parser.handle_starttag = lambda _, pairs: attributes.extend(pairs)
    parser.feed(page)
    assert "<script" not in page and "&lt;script src=" in page
    assert not {"src", "href", "srcset"} & {name for name, _ in attributes}
    assert any(HOSTILE[:57] in str(value) for _, value in attributes)
    assert not re.search(r"@import|url\(", page)


@pytest.mark.parametrize("light", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser_the_page_fits_without_errors_or_requests(page, tmp_path, width, light):
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    with chromium(tmp_path) as browser:
        browser.open(tmp_path / "index.html", width, light)
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert (
            browser.value("Math.min(...[...document.querySelectorAll('.bars svg')].map(bar => bar.clientWidth))") > 50
        )
