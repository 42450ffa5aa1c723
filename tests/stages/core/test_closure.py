"""The record of the code that a stage runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stages.core import closure
from stages.core.closure import Closure, digest
from stages.core.errors import UserError
from tests.support.failing import failing
from tests.support.project import ROOT

SOURCE = '''
"""A module."""
import os
from typing import Final as F

LIMIT: F = 3  # a comment


class A[T] if False else object:
    """A class."""

    async def f(self, x: int, /, *, y: str = "a" "b") -> None:
        """A function."""
        match x:
            case {"k": [1, *rest]} if rest:
                print(f"{x!r:>{LIMIT}} and {y}" "!" f"{x=}")
        async with self as (a, b):
            return await (z := a)
'''.replace("class A[T] if False else object:", "class A:")


def test_comments_docstrings_and_layout_are_no_part_of_a_digest():
    plain = digest("def f(x):\n    return x + 1\n")
    assert digest('"""Doc."""\ndef f( x ):\n\n    """More."""\n    # why\n    return (x + 1)\n') == plain
    assert digest('def f(x):\n    """Only."""\n') == digest("def f(x):\n    '''Another.'''\n")


@pytest.mark.parametrize(
    "changed",
    [
        *("def f(x):\n    return x + 2\n", "def f(y):\n    return y + 1\n", "def f(x=1):\n    return x + 1\n"),
        *("async def f(x):\n    return x + 1\n", "def f(x):\n    return 1 + x\n", "def f(x: int):\n    return x + 1\n"),
        "def f(x):\n    'text'; 'other'\n    return x + 1\n",
    ],
)
def test_everything_else_is_part_of_it(changed):
    assert digest(changed) != digest("def f(x):\n    return x + 1\n")


def test_a_digest_is_the_same_on_every_python_that_is_supported():
    assert digest(SOURCE) == "79606db15a970cd1"


@pytest.mark.parametrize("python", ["python3.11", "python3.12"])
def test_the_digests_of_our_own_files_are_the_same_on_another_python(python):
    program = "import sys; from pathlib import Path; from stages.core.closure import digest;"
    program += " print(*(digest(Path(name).read_text('utf-8')) for name in sys.argv[1:]))"
    files = sorted(str(path) for path in (ROOT / "stages").rglob("*.py"))
    if not (found := shutil.which(python)) or subprocess.run([found, "--version"], capture_output=True).returncode:
        pytest.skip(f"there is no {python} here")
    ran = subprocess.run([found, "-c", program, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [digest(Path(name).read_text(encoding="utf-8")) for name in files]


@pytest.fixture
def tree(tmp_path):
    """A small project: a stage that imports in every way."""
    files = {
        "stages/__init__.py": "",
        "stages/run.py": """
            import importlib
            from typing import TYPE_CHECKING
            import numpy
            from stages.near import helper
            if TYPE_CHECKING:
                from stages.typing_only import T
            COPIES = ("stages/parts", "stages/table.txt")
            RUNS = ("stages/child.py",)
            def main(name):
                from .late import thing
                return importlib.import_module(f"stages.parts.{name}")
            """,
        "stages/near.py": "from stages.settings import params\nimport typer\n",
        "stages/late.py": "import stages.far.deep\n",
        "stages/far/__init__.py": "LIMIT = 1\n",
        "stages/far/deep.py": "",
        "stages/settings/__init__.py": "",
        "stages/settings/params.py": "from stages import unrelated\n",
        "stages/unrelated.py": "",
        "stages/typing_only.py": "",
        "stages/child.py": "import scipy\n",
        "stages/parts/__init__.py": "",
        "stages/parts/red.py": "",
        "stages/parts/blue.py": "",
        "stages/table.txt": "one",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        lines = [line.removeprefix(" " * 12) for line in text.splitlines()]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_a_closure_holds_all_that_is_imported_and_nothing_else(tree):
    found = closure.closure("stages/run.py", {"stages.parts": ["red"]}, tree)
    stems = {name.removeprefix("stages/") for name in found.code}
    near = {"__init__.py", "run.py", "near.py", "late.py", "child.py"}
    assert stems == near | {"far/__init__.py", "far/deep.py", "parts/__init__.py", "parts/red.py"}
    assert set(found.data) == {"stages/parts/__init__.py", "stages/parts/red.py", "stages/table.txt"}
    assert {"numpy", "scipy"} <= set(found.packages) and "typer" not in found.packages


def test_all_modules_of_a_package_count_where_nothing_chooses(tree):
    assert "stages/parts/blue.py" in closure.closure("stages/run.py", {}, tree).code


def test_a_record_comes_back_as_it_was_written(tree):
    found = closure.closure("stages/run.py", {}, tree)
    found.dump(tree / "run.json")
    assert closure.load(tree / "run.json") == found
    assert list(closure.stale(found, tree)) == []


def test_what_has_changed_since_a_record_is_named(tree):
    found = closure.closure("stages/run.py", {}, tree)
    (tree / "stages/near.py").write_text("import typer\nx = 1\n")
    (tree / "stages/late.py").unlink()
    (tree / "stages/table.txt").write_text("two")
    record = found._replace(packages=found.packages | {"numpy": "0.1", "cupy": "1.0"})
    changes = list(closure.stale(record, tree))
    assert changes[:3] == ["stages/late.py was removed", "stages/near.py changed", "stages/table.txt changed"]
    assert [change.split()[0] for change in changes[3:]] == ["cupy", "numpy"]


def test_versions_have_no_local_part_and_extras_do_not_count():
    assert closure.installed("torch") == closure.metadata.version("torch").partition("+")[0]
    assert closure.installed("no-such-package") is None
    assert "onnxruntime" not in closure.versions(["torchmetrics"])
    assert {"torch", "numpy"} <= set(closure.versions(["torchmetrics"]))


def test_the_servers_own_packages_are_those_of_its_lock_file():
    found = closure.closure("stages/verify.py", {})
    lock = closure.locked(ROOT / closure.SERVER_LOCK)
    assert (
        lock
        and {f"{closure.SERVER}{name}": version for name, version in lock.items()}.items() <= found.packages.items()
    )


def test_a_source_that_is_no_python_is_one_line(tree):
    (tree / "stages/near.py").write_text("def f(:\n")
    with failing(UserError, "code-unreadable", "near.py"):
        closure.closure("stages/run.py", {}, tree)


def test_differences_name_files_and_packages():
    before = Closure({"a.py": "1", "b.py": "1"}, {}, {"torch": "2.0"})
    now = Closure({"a.py": "2", "c.py": "1"}, {}, {"torch": "2.1"})
    changes = ["a.py changed", "b.py was removed", "c.py was added", "torch was 2.0 and is 2.1 now"]
    assert list(closure.differences(before, now)) == changes
