"""Runs every command in README.md and some pages of docs/, section by section and in order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.pipeline import answers
from stages.core.arithmetic import NEEDED, instructions
from tests.support.line import FAST, free_ports, read_until, wait_gone
from tests.support.project import BIN, ROOT, Clone, environment

PAGES = ("README.md", "docs/data.md", "docs/training.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block. `how`: the comment above it, which says how to test it. `section`: PAGE#HEADING."""

    section: str
    how: str
    language: str
    code: str


def blocks() -> list[Block]:
    """All blocks of shell and Python, in order."""
    return [block for page in PAGES for block in blocks_of(page)]


def blocks_of(page: str) -> list[Block]:
    """The blocks of one page."""
    blocks_found, section = [], f"{page}#top"
    pattern = (
        r"^## (?P<section>[^\n]+)$|^(?:<!-- test: (?P<how>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$"
    )
    for match in re.finditer(pattern, (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if match["section"]:
            section = f"{page}#{match['section']}"
        elif match["language"] in ("sh", "python"):
            blocks_found.append(Block(section, match["how"] or "", match["language"], match["code"]))
    return blocks_found


def test_every_block_says_how_it_is_tested():
    assert len(blocks()) >= 8
    for block in blocks():
        assert re.match(r"run|served|python|make|background, until: .+|not here, .+", block.how), block.code


def test_every_shell_block_is_valid_syntax():
    for block in blocks():
        if block.language == "sh":
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)


def pages() -> list[str]:
    """Every Markdown page of the project."""
    return [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
    ]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_every_path_of_the_source_that_is_named_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:stages|serving|flows|tests|docs|benchmarks)/[\w./-]+)`", text):
        if not re.search(r"NAME|\bmine\b", path):
            assert (ROOT / path).exists(), path


SERVE = Block("", "background, until: Ctrl-C ends it", "sh", ".venv/bin/millrace serve")
HOUSES = "".join(f"{20 + i * 7 % 180}.5,{'Ulm' if i % 3 else 'Bonn'},{i * 7 % 180}\n" for i in range(600))


@pytest.mark.parametrize("section", list(dict.fromkeys(block.section for block in blocks())))
def test_section(section, done, tmp_path):
    """Commands run as written, except for free ports and a short training."""
    (done.folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    if re.search("pictures|houses", "".join(block.code for block in blocks() if block.section == section)):
        shutil.copytree(done.folder / "data/builtin/digits", tmp_path / "pictures")
        (tmp_path / "houses.csv").write_text(f"area,town,price\n{HOUSES}")
        done.params(**FAST)
    ports = dict(zip(("8000", "8001", "8002", "4200"), map(str, free_ports(4)), strict=True))
    with ExitStack() as stack:
        for block in blocks():
            if block.section == section:
                if block.how == "served":
                    run(done, SERVE, ports, tmp_path, stack)
                run(done, block, ports, tmp_path, stack)
    wait_gone(done)


def run(clone: Clone, block: Block, ports: dict[str, str], home: Path, stack: ExitStack) -> None:
    """Run a block in the clone, as its comment says."""
    if block.how.startswith("not here"):
        return
    if block.how == "make":
        for target in re.findall(r"^make (\w+)", block.code, re.MULTILINE):
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return
    code = elsewhere(block.code, ports, home)
    command = [sys.executable, "-c", code] if block.language == "python" else ["bash", "-euc", code]
    surroundings = environment(clone.folder) | {"HOME": str(home), "PREFECT_HOME": str(home / ".prefect")}
    folders = surroundings["PATH"].split(os.pathsep)
    surroundings["PATH"] = os.pathsep.join(
        each for each in folders if each != str(BIN)
    )  # the environment is not activated
    process = subprocess.Popen(
        command,
        cwd=clone.folder,
        env=surroundings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if block.how.startswith("background"):
        stack.callback(end, process)
        read_until(process, block.how.partition("until: ")[2])
        while "prefect server" in code and not answers(f"http://127.0.0.1:{ports['4200']}/api"):
            assert process.poll() is None
        return
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, f"{code}\n{output}"


def elsewhere(code: str, ports: dict[str, str], home: Path) -> str:
    """The same commands with free ports, and with folders inside the test's own."""
    for port, free in ports.items():
        code = code.replace(f":{port}", f":{free}")
    code = code.replace("/tmp/millrace-storage", str(home / "storage"))
    code = code.replace("millrace predict", f"millrace predict --server 127.0.0.1:{ports['8001']}")
    serve = " ".join(
        f"--{name}-port {ports[port]}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=False)
    )
    code = code.replace("millrace serve", f"millrace serve {serve}")
    return code.replace("prefect server start", f"prefect server start --port {ports['4200']}")


def end(process: subprocess.Popen[str]) -> None:
    """Send Ctrl-C, and wait."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.skipif(not instructions() >= NEEDED, reason="this processor lacks AVX2 or FMA")
def test_the_first_run_exports_the_release_named_in_the_readme(finished: Clone) -> None:
    (printed,) = re.findall(r"the release `digits_([0-9a-f]{12})`", README)
    names = sorted(path.name for path in (finished.folder / "models/repository").iterdir())
    assert f"digits_{printed}" in names
