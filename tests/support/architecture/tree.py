"""Read the sources of a tree: its files, their syntax trees and imports, and dvc.yaml."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import closure
from stages.core.closure import LATE, Import, name_of

PROJECT = ("stages", "serving", "flows")


def sources(root: Path) -> list[str]:
    """Every Python file of the project, as a path below the root."""
    return sorted(path.relative_to(root).as_posix() for top in PROJECT for path in (root / top).rglob("*.py"))


def verbs(root: Path) -> list[str]:
    """The stages of dvc.yaml."""
    return list(graph(root)["stages"])


def graph(root: Path) -> Any:
    """The parsed dvc.yaml."""
    return parsed((root / "dvc.yaml").read_text(encoding="utf-8"))


@cache
def parsed(text: str) -> Any:
    return YAML().load(text)


def nodes(root: Path, file: str) -> list[tuple[ast.AST, bool]]:
    """Every node of a file, and whether it runs late: in a function, or for type checkers only."""
    return walked((root / file).read_text(encoding="utf-8"))


@cache
def walked(text: str) -> list[tuple[ast.AST, bool]]:
    return list(walk(ast.parse(text)))


def walk(tree: ast.AST, late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        yield node, late
        checking = isinstance(node, ast.If) and name_of(node.test) == "TYPE_CHECKING"
        yield from walk(node, late or checking or isinstance(node, LATE))


def imports(root: Path, file: str) -> list[Import]:
    """Everything that a file imports, for types alone too."""
    return closure.imports(file, root, typing=True)


def within(module: str, allowed: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in allowed.split())


def room(file: str) -> str:
    """The room of a file: a folder below stages/ or serving/; flows/ is one room, and the verbs are another."""
    top, _, rest = file.partition("/")
    below, slash, _ = rest.partition("/")
    return f"{top}/{below}" if slash and top != "flows" else top
