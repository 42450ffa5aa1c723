"""Templates: a page loads the files that are listed for it and no other, and escapes values."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from jinja2 import meta

from flows.report import page as of_run
from stages.core import closure, page
from stages.validation import page as of_validation
from tests.support.project import ROOT

HTML = {"run": of_run.PAGE_FILES, "validation": of_validation.COPIES}


def loaded(file: str, files: dict[str, str]) -> set[str]:
    """A template and all that it loads, by their paths."""
    tree = jinja2.Environment().parse((ROOT / file).read_text(encoding="utf-8"))
    names = [files[str(name)] for name in meta.find_referenced_templates(tree)]
    return {file}.union(*(loaded(name, files) for name in names))


@pytest.mark.parametrize("listed", HTML.values(), ids=HTML)
def test_a_page_lists_exactly_the_files_that_it_loads(listed):
    files = {Path(file).name: file for file in (*listed, *page.COPIES)}
    assert loaded(listed[0], files) == {*listed, *page.COPIES}


def test_validation_records_its_templates_and_not_those_of_other_pages():
    record = closure.closure("stages/validate.py", {})
    assert set(record.data) == {*of_validation.COPIES, *page.COPIES}
    assert "jinja2" in record.packages


def test_other_stages_record_no_template():
    record = closure.closure("stages/gate.py", {})
    assert not set(record.data) & {*of_validation.COPIES, *page.COPIES}


def test_a_file_that_is_not_listed_cannot_be_loaded():
    with pytest.raises(jinja2.TemplateNotFound, match=r"macros\.html"):
        page.render(of_run.PAGE_FILES[:1], {})


def test_values_are_escaped_and_a_missing_one_is_an_error(tmp_path):
    template = tmp_path / "template.html"
    template.write_text("{{ value }}", encoding="utf-8")
    assert page.render([str(template)], {"value": "<b>"}) == "&lt;b&gt;"
    assert page.render([str(template)], {"value": "<b>"}, str.upper) == "<B>"
    with pytest.raises(jinja2.UndefinedError):
        page.render([str(template)], {})


def test_html_files_share_one_stylesheet():
    styles = [path.relative_to(ROOT).as_posix() for top in closure.PROJECT for path in (ROOT / top).rglob("*.css")]
    assert styles == ["stages/core/page/style.css"]
    styled = [
        path.name
        for top in closure.PROJECT
        for path in (ROOT / top).rglob("*.html")
        if "<style" in path.read_text(encoding="utf-8")
    ]
    assert styled == ["base.html"]
