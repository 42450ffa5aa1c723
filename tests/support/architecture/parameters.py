"""The rule on the keys of params.yaml: what a stage's code reads is what dvc.yaml lists for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from stages.core import closure
from stages.settings.sections import Params
from tests.support.architecture.tree import graph

WHOLE = {field.name: Params.__annotations__[field.name] for field in fields(Params)}  # section -> name of its type


def read_key_faults(root: Path) -> list[str]:
    """Each key that dvc.yaml lists for a stage is read by its code, and no other is.

    A key is read as an attribute of a section: of one in `Parameters`, or of an argument annotated with its type. Or it
    is the path of a dependency.
    """
    faults = []
    for verb, stage in graph(root)["stages"].items():
        files = [*closure.closure(f"stages/{verb}.py", {}, root).code]
        files += ["stages/settings/choices.py"] if verb == "code" else []
        read: dict[str, str] = {}
        for file in files:
            text = (root / file).read_text(encoding="utf-8")
            if "Parameters" in text or "stages.settings.sections import" in text:
                read |= {key: f"{file}:{line}" for line, key in _keys_read(ast.parse(text))}
        listed = {key for key in stage.get("params", []) if f"${{{key}}}" not in stage["deps"]}
        at = f"dvc.yaml:{stage.lc.line + 1}: {verb}"
        faults += [f"{at} lists {key}, which its code does not read" for key in sorted(listed - read.keys())]
        faults += [f"{read[key]}: reads {key}, which dvc.yaml does not list for {verb}" for key in read.keys() - listed]
    return faults


def _keys_read(tree: ast.Module) -> Iterator[tuple[int, str]]:
    declared = {
        line.target.id: ast.unparse(line.annotation)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Parameters"
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    sections = {alias.name for alias in _imported(tree)} | {f"sections.{type_}" for type_ in WHOLE.values()}
    types = {f"{prefix}{type_}": name for name, type_ in WHOLE.items() for prefix in ("", "sections.")}
    types = {type_: name for type_, name in types.items() if type_ in sections}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        known = {
            argument.arg: ast.unparse(argument.annotation) for argument in function.args.args if argument.annotation
        }

        def type_of(node: ast.AST, known: dict[str, str] = known) -> str:
            """The name of an expression's type, if that is `Parameters` or a section."""
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "params.load":
                return "Parameters"
            if isinstance(node, ast.Name):
                return known.get(node.id, "")
            if isinstance(node, ast.Attribute) and type_of(node.value) == "Parameters":
                return declared.get(node.attr, "")
            return ""

        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                target, value = node.targets[0], node.value
                pairs = [(target, value)]
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                    pairs = list(zip(target.elts, value.elts, strict=False))
                known |= {name.id: type_of(given) for name, given in pairs if isinstance(name, ast.Name)}
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and (type_ := type_of(node.value)) in types:
                yield node.lineno, f"{types[type_]}.{node.attr}"


def _imported(tree: ast.Module) -> list[ast.alias]:
    """What a file imports from the modules of stages/settings."""
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return [alias for node in froms if f"{node.module}".startswith("stages.settings.") for alias in node.names]
