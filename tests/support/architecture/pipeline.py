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
    """Each path is written once, outputs do not overlap, and `main` takes exactly the paths that DVC knows."""
    tree, text = graph(root), (root / "dvc.yaml").read_text(encoding="utf-8")
    paths = dict(tree["vars"][0]["paths"])
    names = {path: name for name, path in paths.items()} | {"${data.path}": "data"}
    outs: dict[str, str] = {}
    faults = []
    for verb, stage in tree["stages"].items():
        at = f"dvc.yaml:{stage.lc.line + 1}: {verb}"
        if stage["cmd"] != f"python -m stages.{verb}":
            faults.append(f"{at} runs {stage['cmd']}")
        code = (*PROJECT, "requirements.lock", RECORD.format(verb))
        data, made = [path for path in stage["deps"] if path not in code], plain(stage["outs"])
        faults += [f"{at}: {path} belongs under vars" for path in [*data, *made] if path not in names]
        known, taken = {names[path] for path in [*data, *made] if path in names}, parameters(root, verb)
        faults += [f"{at}: its main takes {name}, which is neither among deps nor outs" for name in taken - known]
        faults += [f"{at}: its main does not take {name}" for name in known - taken]
        for out in made:
            if "${data" in out:
                faults.append(f"{at}: the output {out} depends on params")
            elif out in outs:
                faults.append(f"{at}: {out} is {outs[out]}'s output")
            outs[out] = verb
    used = json.dumps(tree["stages"])
    faults += [f"dvc.yaml:1: no stage uses the path {name}" for name, path in paths.items() if f'"{path}"' not in used]
    written = {name: len(re.findall(rf"(?<![\w/]){re.escape(path)}(?![\w/])", text)) for name, path in paths.items()}
    faults += [f"dvc.yaml:1: {paths[name]} is written {count} times" for name, count in written.items() if count != 1]
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


def parameters(root: Path, verb: str) -> set[str]:
    """The names of the paths that a stage's `main` takes."""
    file = root / f"stages/{verb}.py"
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() else ast.Module([], [])
    mains = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    return {argument.arg for node in mains for argument in node.args.args}


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
