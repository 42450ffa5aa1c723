"""What dvc.yaml and params.yaml declare of a stage."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

GRAPH, PARAMS = "dvc.yaml", "params.yaml"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)  # what `declared_stage` may raise


@dataclass(frozen=True)
class Declared:
    """A stage of dvc.yaml with its variables filled in. `params`: key -> value; `made`: the outputs of all stages."""

    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: dict[str, Any]
    made: frozenset[str] = field(compare=False)


def declared_paths() -> dict[str, str]:
    """Name -> path, as `vars` of dvc.yaml and `data.path` of params.yaml have them; empty where they cannot be read."""
    with contextlib.suppress(*UNREADABLE):
        graph, params = _tree(GRAPH), _tree(PARAMS)
        return {**graph["vars"][0]["paths"], "data": params["data"]["path"]}
    return {}


def declared_stage(stage: str) -> Declared:
    """What dvc.yaml and params.yaml now declare of a stage.

    Raises:
        UNREADABLE: they cannot be read, or have no such stage.
    """
    graph, params = _tree(GRAPH), _tree(PARAMS)
    variables = params | {
        name: value for group in graph.get("vars", []) if isinstance(group, dict) for name, value in group.items()
    }

    def filled(text: str) -> str:
        return re.sub(r"\$\{([\w.]+)\}", lambda name: str(_value(variables, name[1])), text)

    entry = graph["stages"][stage]
    outs = {name: [filled(_path(out)) for out in tree.get("outs", [])] for name, tree in graph["stages"].items()}
    return Declared(
        filled(entry["cmd"]),
        tuple(filled(_path(dependency)) for dependency in entry.get("deps", [])),
        tuple(outs[stage]),
        {key: _value(params, key) for key in entry.get("params", [])},
        frozenset(path for paths in outs.values() for path in paths),
    )


def _tree(name: str) -> Any:
    """A YAML file as DVC reads it. It must not be changed: the same text is parsed once.

    Raises:
        UNREADABLE: it cannot be read.
    """
    return _parsed(Path(name).read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ValueError(str(error)) from error


def _path(declaration: Any) -> str:
    """The path of a dependency or output, with or without options."""
    return declaration if isinstance(declaration, str) else str(next(iter(declaration)))


def _value(tree: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    try:
        return reduce(getitem, key.split("."), tree)
    except (LookupError, TypeError):
        return None
