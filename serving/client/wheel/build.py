"""`make client`: build the client as a separate wheel, `millrace_client`, from the same files under other names.

    python -m serving.client.wheel.build FOLDER     # the folder for the wheel

Equal files give equal bytes.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "millrace_client"
FILES = (  # of stages
    *("__init__.py", "core/__init__.py", "core/errors.py", "core/lookup.py"),
    *("schema/__init__.py", "schema/spelling.py", "schema/kinds/*.py"),
    *("tables/__init__.py", "tables/arrow.py", "tables/sources/*.py"),
)
LEFT_OUT = ("predict.py",)  # the command, which needs the rest of the project
_NAMES = re.compile(r"\b(serving\.client|serving\.triton|stages)(?=\.\w| import\b)")
_NEW = {"serving.client": PACKAGE, "serving.triton": PACKAGE, "stages": f"{PACKAGE}.stages"}
EPOCH = "315532800"  # 1980, the earliest time in a zip file


def main() -> None:
    """Build the wheel and print its path."""
    target = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder:
        assemble(Path(folder))
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(target), folder]
        subprocess.run(command, check=True, env={**environ, "SOURCE_DATE_EPOCH": EPOCH})
    print(*sorted(target.glob(f"{PACKAGE}-*.whl")), sep="\n")


def assemble(folder: Path) -> None:
    """Write the sources of the distribution."""
    for source, place in sources():
        target = folder / PACKAGE / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(renamed(source.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / PACKAGE / "py.typed").touch()
    shutil.copy(Path(__file__).with_name("pyproject.toml"), folder)
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(ROOT / "docs/client.md", folder / "README.md")


def sources() -> Iterator[tuple[Path, str]]:
    """Yield each file of the project that is in the package, and its path there."""
    for path in sorted((ROOT / "serving/client").glob("*.py")):
        if path.name not in LEFT_OUT:
            yield path, path.name
    yield ROOT / "serving/triton/wire.py", "wire.py"
    for pattern in FILES:
        for path in sorted((ROOT / "stages").glob(pattern)):
            yield path, path.relative_to(ROOT).as_posix()


def renamed(code: str) -> str:
    """Rename the imports of a file, also those by name, so that they are from the package alone.

    Raises:
        ValueError: the file imports a module of the project that is not in the package.
    """
    code = _NAMES.sub(lambda match: _NEW[match[1]], code)
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for module in [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]:
            if module.partition(".")[0] in ("serving", "stages", "flows"):
                raise ValueError(f"line {node.lineno} imports {module}, which is not in the package")
    return code


if __name__ == "__main__":
    main()
