"""Rules on files: what lies in stages/, where kinds and pictures may be named, and how long a file may be."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.architecture.dependencies import BY_NAME
from tests.support.architecture.tree import imports, nodes, room, sources, verbs, within

# The files that may name pixels, besides those named by the kind.
PICTURES = (
    "stages/fetch.py",
    *("stages/tables/sources/image_folder.py", "stages/tables/sources/idx.py", "stages/networks/encoders/cnn.py"),
)

PICTURE_WORDS = {"image", "images", "pixel", "pixels"}
MOST_LINES = 400


def verb_faults(root: Path) -> list[str]:
    """Each stage of dvc.yaml is a file of stages/ that runs, and stages/ holds no other file."""
    commands = {f"stages/{verb}.py" for verb in verbs(root)}
    faults = [f"dvc.yaml: there is no {file}" for file in sorted(commands - set(sources(root)))]
    for file in sources(root):
        runs = 'if __name__ == "__main__":' in (root / file).read_text(encoding="utf-8")
        if file in commands and not runs:
            faults.append(f"{file}:1: is a stage that never runs")
        if room(file) == "stages" and file not in {*commands, "stages/__init__.py"}:
            faults.append(f"{file}:1: is no stage of dvc.yaml: put it into one of the folders")
    return faults


def kinds(root: Path) -> dict[str, set[str]]:
    """The files of each kind, by its name in params and by that of its module."""
    files = {}
    for path in (root / BY_NAME[0]).glob("*.py"):
        if path.stem != "__init__":
            short = path.stem.removeprefix("target_")
            files[short] = {f"{folder}/{path.stem}.py" for folder in BY_NAME}
            files[path.stem] = files[short]
    return files


def kind_faults(root: Path) -> list[str]:
    """No comparison, match or table with the name of a kind outside the kind's files."""
    names = kinds(root)
    faults = []
    for file in sources(root):
        for node, _ in nodes(root, file):
            if isinstance(node, ast.Compare):
                compared = [node.left, *node.comparators]
            elif isinstance(node, ast.MatchValue):
                compared = [node.value]
            elif isinstance(node, ast.Dict):  # a table by kind
                keys = [key for key in node.keys if isinstance(key, ast.Constant)]
                compared = keys if all(key.value in names for key in keys) else []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                compared = node.args if node.func.attr in ("startswith", "endswith") else []
            else:
                continue
            constants = (inner for outer in compared for inner in ast.walk(outer) if isinstance(inner, ast.Constant))
            for constant in constants:
                if constant.value in names and file not in names[constant.value]:
                    faults.append(f"{file}:{constant.lineno}: branches on the kind {constant.value!r}")
    return sorted(set(faults))


def picture_faults(root: Path) -> list[str]:
    """Only the files about pictures load Pillow or name pixels."""
    faults = []
    for file in sources(root):
        if file in kinds(root)["image"] | set(PICTURES):
            continue
        faults += [f"{file}:{line}: loads Pillow" for line, module, _ in imports(root, file) if within(module, "PIL")]
        for node, _ in nodes(root, file):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
            name = name or getattr(node, "name", None)
            if isinstance(name, str) and PICTURE_WORDS & set(name.lower().split("_")):
                faults.append(f"{file}:{getattr(node, 'lineno', 1)}: {name} is a picture's business")
    return faults


def length_faults(root: Path) -> list[str]:
    """Files of more than MOST_LINES lines, tests included."""
    tests = sorted(path.relative_to(root).as_posix() for path in (root / "tests").rglob("*.py"))
    counts = {file: len((root / file).read_text(encoding="utf-8").splitlines()) for file in (*sources(root), *tests)}
    return [f"{file}:{count}: over {MOST_LINES} lines" for file, count in counts.items() if count > MOST_LINES]
