"""Every error has a stable code: one for each cause, in tests/golden/errors.txt with the sentences of the source."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys

import pytest

from serving.client import AccessDenied, RowError, ServerError, TlsError, Unavailable
from serving.triton.admin import CallFailed
from stages.core.errors import CodedError, Misuse
from tests.support.error_sites import family, golden, sites
from tests.support.project import ROOT

CODE = re.compile(r"[a-z]+(-[a-z]+)+")
GOLDEN = "tests/golden/errors.txt"
REMEDY = f"if that is meant: python -m tests.support.error_sites > {GOLDEN}"


def test_every_error_has_a_code_of_words_in_lower_case():
    faults = [
        f"{site.place}: {site.code or 'no literal code'}"
        for site in sites(ROOT)
        if not site.forwards and not CODE.fullmatch(site.code)
    ]
    assert faults == []


def test_codes_and_sentences_are_those_of_the_golden_file():
    assert golden(ROOT) == (ROOT / GOLDEN).read_text(encoding="utf-8"), REMEDY


def test_the_page_of_errors_explains_every_code():
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == sorted({s.code for s in sites(ROOT) if s.code})


def test_a_site_without_a_code_is_found(tmp_path):
    lines = (
        "class Own(UserError): ...",
        'raise Own(f"no {path}")',
        'raise core.Busy("lock-held", "is" if a else f"{b!r}")',
    )
    folders = [tmp_path / top for top in ("stages/core", "serving", "flows")]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / "errors.py").write_text((ROOT / "stages/core/errors.py").read_text(encoding="utf-8"))
    (folders[2] / "new.py").write_text("\n".join(lines))
    without, within = sites(tmp_path)
    assert (without.place, without.code, without.forwards) == ("flows/new.py:2", "", False)
    assert (within.code, within.sentences) == ("lock-held", ["is", "{b}"])
    assert family(tmp_path) >= {"UserError", "Own"}
    assert golden(tmp_path) == "lock-held\n    is\n    {b}\n"


def test_a_command_prints_the_code_once_at_the_end_of_its_line():
    program = (
        "from stages.core import command; from stages.core.errors import Misuse\n"
        "def main(): raise Misuse('data-not-found', 'there is no a.csv')\n"
        "command.run_with_options(main)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, "error: there is no a.csv  [data-not-found]\n")


@pytest.mark.parametrize(
    "error",
    [
        Misuse("data-not-found", "there is no a.csv"),
        CallFailed("server-failed", "no", "DEADLINE_EXCEEDED"),
        RowError("row-invalid-value", "'x' is not a number", "area", 3),
        RowError("row-invalid-value", "'x' is not a number", "area").at(3, "a.csv row 4"),
        *(kind("server-failed", "no") for kind in (Unavailable, TlsError, AccessDenied, ServerError)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_code_and_sentence_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, CodedError) and type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))
