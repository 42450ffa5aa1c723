"""Find every error of the project in its source: where it is raised, its code, and the sentences that it may have.

python -m tests.support.error_sites > tests/golden/errors.txt
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from stages.core.closure import name_of
from tests.support.architecture.tree import nodes, sources
from tests.support.project import ROOT


class Site(NamedTuple):
    """A place that makes an error. `code` is "" where it is not written there; `sentences` are as in the source."""

    place: str
    code: str
    forwards: bool  # the code of another error
    sentences: list[str]


def sites(root: Path) -> Iterator[Site]:
    """Every call of a class of the family."""
    errors = family(root)
    for file in sources(root):
        for node, _ in nodes(root, file):
            if isinstance(node, ast.Call) and name_of(node.func).rpartition(".")[2] in errors:
                code, *rest = node.args
                literal = code.value if isinstance(code, ast.Constant) and len(node.args) > 1 else ""
                forwards = isinstance(code, ast.Attribute) and code.attr == "code"
                yield Site(f"{file}:{node.lineno}", str(literal), forwards, templates(rest[0]) if rest else [])


def family(root: Path) -> set[str]:
    """CodedError and the names of all classes that derive from it."""
    classes = [node for file in sources(root) for node, _ in nodes(root, file) if isinstance(node, ast.ClassDef)]
    found = {"CodedError"}
    while more := {each.name for each in classes if found & {name_of(base) for base in each.bases}} - found:
        found |= more
    return found


def templates(node: ast.expr) -> list[str]:
    """The texts that an expression may give, with {expressions} as they are written."""
    match node:
        case ast.Constant(value=str(text)):
            return [text.replace("\n", "\\n")]
        case ast.IfExp(body=body, orelse=other):
            return [*templates(body), *templates(other)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return ["".join(parts) for parts in product(templates(left), templates(right))]
        case ast.JoinedStr(values=values):
            return ["".join(map(_part, values))]
        case _:
            return [f"{{{ast.unparse(node)}}}"]


def golden(root: Path) -> str:
    """Every code, and below it its sentences."""
    found: dict[str, set[str]] = {}
    for site in sites(root):
        if site.code:
            found.setdefault(site.code, set()).update(site.sentences)
    return "".join(f"{code}\n" + "".join(f"    {each}\n" for each in sorted(found[code])) for code in sorted(found))


def _part(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=text):
            return str(text).replace("\n", "\\n")
        case ast.FormattedValue(value=value):  # without its format, which no reader needs
            return f"{{{ast.unparse(value)}}}"
    return ast.unparse(node)


if __name__ == "__main__":
    print(golden(ROOT), end="")
