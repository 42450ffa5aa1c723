"""Rules on dvc.yaml and params.yaml: dependencies on code, paths and parameters."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.architecture.tree import PROJECT, graph, nodes, sources

RECORD = "${{paths.code}}/{}.json"  # of a stage's code


def dependency_faults(root: Path) -> list[str]:
    """Each stage depends on its own record of the code and on no other code; the stage `code` depends on all code."""
    faults = []
    for verb, stage in graph(root)["stages"].items():
        listed = {path: stage["deps"].lc.item(i)[0] + 1 for i, path in enumerate(stage["deps"])}
        wanted = {RECORD.format(verb)} if verb != "code" else {"stages", "serving", "requirements.lock"}
        code = {path for path in listed if path.startswith((*PROJECT, "${paths.code}", "requirements"))}
        where = stage.lc.key("deps")[0] + 1
        faults += [f"dvc.yaml:{where}: {verb} lacks {path}" for path in sorted(wanted - code)]
        faults += [f"dvc.yaml:{listed[path]}: {verb} depends on {path}" for path in sorted(code - wanted)]
    return faults


def path_faults(root: Path) -> list[str]:
    """Each path is written once, outputs do not overlap, and commands use exactly the paths that DVC knows."""
    tree = graph(root)
    paths = dict(tree["vars"][0]["paths"])
    outs: dict[str, str] = {}
    faults = []
    for verb, stage in tree["stages"].items():
        at = f"dvc.yaml:{stage.lc.line + 1}: {verb}"
        start, *arguments = stage["cmd"].removeprefix("python -m ").split()
        if start != f"stages.{verb}" or not stage["cmd"].startswith("python -m "):
            faults.append(f"{at} runs {stage['cmd']}")
        code = (*PROJECT, "requirements.lock", RECORD.format(verb))
        data, made = [path for path in stage["deps"] if path not in code], plain(stage["outs"])
        for argument in arguments:
            if argument not in [*data, *made]:
                faults.append(f"{at}: {argument} of its command is neither among deps nor outs")
        faults += [f"{at}: its command does not take {path}" for path in [*data, *made] if path not in arguments]
        for path in [*data, *made]:
            if not re.fullmatch(r"\$\{paths\.\w+\}|\$\{data\.path\}", path):
                faults.append(f"{at}: {path} belongs under vars")
        for out in made:
            if not out.startswith("${paths."):
                faults.append(f"{at}: the output {out} depends on params")
            elif out in outs:
                faults.append(f"{at}: {out} is {outs[out]}'s output")
            outs[out] = verb
    used = json.dumps(tree["stages"])
    faults += [f"dvc.yaml:1: no stage uses the path {name}" for name in paths if f"${{paths.{name}}}" not in used]
    for name, path in paths.items():
        others = (other for other in paths if name < other)
        faults += [f"dvc.yaml:1: {name} and {other} overlap" for other in others if overlap(path, paths[other])]
        if overlap(path, "data/raw"):
            faults.append(f"dvc.yaml:1: {name} lies in data/raw, which belongs to the user")
    for file in sources(root):
        for node, _ in nodes(root, file):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                again = [
                    path for path in paths.values() if re.search(rf"(?<![\w/]){re.escape(path)}(?!\w)", node.value)
                ]
                faults += [f"{file}:{node.lineno}: writes the path {path} again" for path in again]
    return faults


def plain(outs: list[Any]) -> list[str]:
    """The paths of outputs, without their options."""
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def overlap(one: str, two: str) -> bool:
    return one == two or one.startswith(f"{two}/") or two.startswith(f"{one}/")


def param_faults(root: Path) -> list[str]:
    """dvc.yaml lists existing parameters, and some stage lists each parameter, except those of `serve`."""
    tree = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    leaves = {f"{section}.{key}" for section, keys in tree.items() if section != "serve" for key in keys}
    faults, used = [], set()
    for verb, stage in graph(root)["stages"].items():
        listed = stage.get("params", [])
        faults += [
            f"dvc.yaml:{stage.lc.line + 1}: {verb} lists {key}, which params.yaml does not have"
            for key in listed
            if key not in leaves
        ]
        used |= set(listed)
    return faults + [f"params.yaml:1: no stage lists {key}" for key in sorted(leaves - used)]
