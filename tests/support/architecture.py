"""The rules of the tree: who may import whom, and dvc.yaml against the imports.

Each rule is a function of a tree's root that returns faults, "FILE:LINE: what is wrong".
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import closure
from stages.core.closure import LATE, Import, file_of, name_of

PROJECT = ("stages", "serving", "flows")


# Who may lean on whom, from the ground up: a file, what it may import of ours, and of others beside the standard
# library (None: anything). The first line that fits a file holds. A room may always import itself.
GROUND = "stages.core stages.schema"


MIDDLE = f"{GROUND} stages.stats stages.tables stages.networks"


FLOORS = [
    # file, ours, others'
    ("stages/core/errors.py", "", ""),
    ("stages/core/*", "", None),
    ("stages/schema/__init__.py", "", "numpy"),
    ("stages/schema/*", "", "numpy PIL"),
    ("stages/stats/*", "stages.core", None),
    ("stages/tables/*", f"{GROUND} stages.stats", None),
    ("stages/networks/*", f"{GROUND} stages.stats", None),
    ("stages/trees/*", GROUND, None),
    ("stages/validation/expectations/*", "", ""),
    ("stages/validation/*", f"{GROUND} stages.stats", None),
    ("stages/training/*", MIDDLE, None),
    ("stages/evaluation/*", f"{MIDDLE} stages.trees", None),
    ("serving/triton/backends/encode.py", "stages.schema", "numpy triton_python_backend_utils"),
    ("serving/triton/backends/router.py", "stages.schema", "numpy triton_python_backend_utils"),
    ("serving/triton/backends/*", "", "numpy onnxruntime triton_python_backend_utils"),
    ("serving/triton/runtime/*", "", ""),
    ("serving/triton/wire.py", "stages.schema", "numpy tritonclient"),
    ("serving/triton/*", f"{GROUND} stages.tables", None),
    ("stages/gating/perturbations/*", "stages.schema", "numpy"),
    ("stages/gating/*", f"{MIDDLE} stages.evaluation serving.triton", None),
    ("stages/settings/*", f"{MIDDLE} stages.validation stages.gating", None),
    ("stages/*", "stages serving.triton", None),
    ("serving/releases/*", f"{GROUND} stages.gating.verdict serving.triton", None),
    ("serving/client/predict.py", f"{GROUND} stages.settings stages.tables.sources", "numpy pyarrow"),
    ("serving/client/inputs.py", f"{GROUND} stages.tables.sources", None),
    ("serving/client/*", "stages.schema serving.triton.wire", "numpy tritonclient grpc aiohttp pandas"),
    ("serving/__init__.py", "", ""),
    ("flows/*", "stages serving", None),
]


BY_NAME = (
    *("stages/schema/kinds", "stages/schema/views", "stages/validation/expectations"),
    "stages/gating/perturbations",
    *("stages/tables/sources", "stages/networks/augmentations"),
    *("stages/networks/encoders", "stages/networks/trunks", "stages/networks/heads", "stages/trees"),
    *("stages/evaluation/metrics", "stages/evaluation/plots", "stages/evaluation/samples"),
)


SHIPPED = ("stages/schema/__init__.py", "stages/schema/kinds/")  # copied into every exported model


# The files that know what a picture is, beside those that bear the kind's name.
PICTURES = (
    "stages/fetch.py",
    *("stages/tables/sources/image_folder.py", "stages/tables/sources/idx.py", "stages/networks/encoders/cnn.py"),
)


PICTURE_WORDS = {"image", "images", "pixel", "pixels"}


HEAVY = {
    *("torch", "lightning", "torchmetrics", "great_expectations", "sklearn", "scipy", "matplotlib", "pandas"),
    *("onnx", "onnxruntime", "tritonclient", "grpc", "prefect", "dvc"),
}


MOST_LINES = 450


LONG = {"flows/pipeline.py"}  # one driver, read downward


def sources(root: Path) -> list[str]:
    """Every Python file of ours, as a path below the root."""
    return sorted(path.relative_to(root).as_posix() for top in PROJECT for path in (root / top).rglob("*.py"))


def verbs(root: Path) -> list[str]:
    """The stages of dvc.yaml."""
    return list(graph(root)["stages"])


def graph(root: Path) -> Any:
    return parsed((root / "dvc.yaml").read_text(encoding="utf-8"))


@cache
def parsed(text: str) -> Any:
    return YAML().load(text)


def nodes(root: Path, file: str) -> list[tuple[ast.AST, bool]]:
    """Every node of a file, and whether it runs only when a function is called or a type checker looks."""
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
    """Everything that a file imports, for types alone as well."""
    return closure.imports(file, root, typing=True)


def within(module: str, allowed: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed.split())


def room(file: str) -> str:
    """The folder that a file belongs to: below each of the three, a folder of it; flows/ and the verbs are one each."""
    top, _, rest = file.partition("/")
    below, within, _ = rest.partition("/")
    return f"{top}/{below}" if within and top != "flows" else top


def import_faults(root: Path) -> list[str]:
    """Imports against FLOORS, and the rules that hold everywhere."""
    faults = []
    commands = {f"stages.{verb}" for verb in verbs(root)}
    for file in sources(root):
        ours, others = next(allowed for pattern, *allowed in FLOORS if fnmatch(file, pattern))
        ours += " " + room(file).replace("/", ".")
        for line, module, _ in imports(root, file):
            top = module.partition(".")[0]
            folder = file_of(module.removesuffix(".*"), root).rpartition("/")[0]
            if module == "?":
                fault = "imports by a name that is not written here"
            elif module.endswith(".*") and folder not in BY_NAME:
                fault = f"looks up {module} by name: list it in BY_NAME here, and in stages/code.py"
            elif top not in PROJECT:
                free = others is None or top in sys.stdlib_module_names or top in others.split()
                fault = "" if free else f"may not import {top}"
            elif module in commands:
                fault = f"imports the verb {module}: stages share files alone"
            elif top == "flows" and not file.startswith("flows/"):
                fault = "nothing imports flows/"
            elif within(module, "stages.schema.views") and file.startswith(SHIPPED):
                fault = f"ships with a model, and {module} does not"
            elif not within(module, ours) and module not in PROJECT:
                fault = f"may not import {module}"
            elif (
                folder in BY_NAME[:4]
                and folder not in file
                and Path(file_of(module, root)).name not in ("__init__.py", Path(file).name)  # a kind's own file
                and not module.endswith(".*")
            ):
                fault = f"imports {module} itself, which is looked up by name"
            else:
                continue
            if fault:
                faults.append(f"{file}:{line}: {fault}")
    return faults


def verb_faults(root: Path) -> list[str]:
    """Each verb is a file of stages/ that runs, and nothing else lies there."""
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
    """A kind's name as params say it: the files that are its own."""
    found = {}
    for path in (root / BY_NAME[0]).glob("*.py"):
        if path.stem != "__init__":
            short = path.stem.removeprefix("target_")
            found[short] = {f"{folder}/{path.stem}.py" for folder in BY_NAME}
            found[path.stem] = found[short]
    return found


def kind_faults(root: Path) -> list[str]:
    """No comparison, match or table with the name of a kind outside its own files."""
    names = kinds(root)
    faults = []
    for file in sources(root):
        for node, _ in nodes(root, file):
            if isinstance(node, ast.Compare):
                compared = [node.left, *node.comparators]
            elif isinstance(node, ast.MatchValue):
                compared = [node.value]
            elif isinstance(node, ast.Dict):  # a table of what to do for which kind
                keys = [key for key in node.keys if isinstance(key, ast.Constant)]
                compared = keys if all(key.value in names for key in keys) else []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                compared = node.args if node.func.attr in ("startswith", "endswith") else []
            else:
                continue
            for one in (inner for outer in compared for inner in ast.walk(outer) if isinstance(inner, ast.Constant)):
                if one.value in names and file not in names[one.value]:
                    faults.append(f"{file}:{one.lineno}: branches on the kind {one.value!r}")
    return sorted(set(faults))


def picture_faults(root: Path) -> list[str]:
    """Only the picture's own files load Pillow or name pixels."""
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


def load_faults(root: Path) -> list[str]:
    """What `python -m stages.VERB --help` loads, without running it."""
    faults = []
    for verb in verbs(root):
        queue, seen = [f"stages/{verb}.py"], set()
        while queue:
            file = queue.pop()
            seen.add(file)
            early = [(line, module) for line, module, late in imports(root, file) if not late]
            queue += [name for _, module in early if (name := file_of(module, root)) and name not in seen]
            heavy = [(line, module) for line, module in early if module.partition(".")[0] in HEAVY]
            faults += [f"{file}:{line}: {verb} loads {module} even for --help" for line, module in heavy]
    return faults


def dependency_faults(root: Path) -> list[str]:
    """Each stage depends on its own record of the code, and on no other code; the first writes them from all of it."""
    faults = []
    for verb, stage in graph(root)["stages"].items():
        listed = {path: stage["deps"].lc.item(i)[0] + 1 for i, path in enumerate(stage["deps"])}
        wanted = {RECORD.format(verb)} if verb != "code" else {"stages", "serving", "requirements.lock"}
        code = {path for path in listed if path.startswith((*PROJECT, "${paths.code}", "requirements"))}
        where = stage.lc.key("deps")[0] + 1
        faults += [f"dvc.yaml:{where}: {verb} lacks {path}" for path in sorted(wanted - code)]
        faults += [f"dvc.yaml:{listed[path]}: {verb} depends on {path}" for path in sorted(code - wanted)]
    return faults


def package_version_faults(root: Path) -> list[str]:
    """Every package that our code imports has a version to be recorded, but for the server's own module."""
    faults = []
    for file in sources(root):
        for line, module, _ in imports(root, file):
            top = module.partition(".")[0]
            known = top in (*PROJECT, *sys.stdlib_module_names, "triton_python_backend_utils")
            if not known and closure.installed(closure.distribution(top)) is None:
                faults.append(f"{file}:{line}: no package holds {top}: see DISTRIBUTIONS in stages/core/closure.py")
    return faults


def circle_faults(root: Path) -> list[str]:
    """Files, and folders, that import one another in a circle; what is imported late counts as well.

    No room leans on one above it, though two of the top three folders lean on each other: the verbs and gating on
    serving/triton, serving/releases on gating's verdict.
    """
    faults = []
    for level in (lambda file: file, room):
        arrows: dict[str, set[str]] = {}
        for file in sources(root):
            for _, module, _ in imports(root, file):
                looked_up = module.endswith(".*")
                for other in filter(
                    None, closure.executed_files(module, {}, root) if looked_up else [file_of(module, root)]
                ):
                    if not (other.endswith("/__init__.py") and file.startswith(other.removesuffix("__init__.py"))):
                        arrows.setdefault(level(file), set()).add(level(other))
        try:
            list(TopologicalSorter({at: to - {at} for at, to in arrows.items()}).static_order())
        except CycleError as error:
            circle = error.args[1][:-1]
            first = circle.index(min(circle))
            faults.append(f"{min(circle)}:1: a circle of imports: {' -> '.join(circle[first:] + circle[:first])}")
    return faults


def path_faults(root: Path) -> list[str]:
    """Paths are written once, outputs are disjoint and nobody's, and commands hide nothing from DVC."""
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
    faults += [f"dvc.yaml:1: nobody uses the path {name}" for name in paths if f"${{paths.{name}}}" not in used]
    for one, path in paths.items():
        faults += [f"dvc.yaml:1: {one} and {two} overlap" for two in paths if one < two and overlap(path, paths[two])]
        if overlap(path, "data/raw"):
            faults.append(f"dvc.yaml:1: {one} lies in data/raw, which is people's own")
    for file in sources(root):
        for node, _ in nodes(root, file):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = [path for path in paths.values() if re.search(rf"(?<![\w/]){re.escape(path)}(?!\w)", node.value)]
                faults += [f"{file}:{node.lineno}: writes the path {path} again" for path in said]
    return faults


def plain(outs: list[Any]) -> list[str]:
    """Outputs without what is said of them."""
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def overlap(one: str, two: str) -> bool:
    return one == two or one.startswith(f"{two}/") or two.startswith(f"{one}/")


def param_faults(root: Path) -> list[str]:
    """dvc.yaml lists values that exist, and every value of params.yaml acts somewhere: those of `serve` on no stage."""
    tree = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    leaves = {f"{section}.{key}" for section, keys in tree.items() if section != "serve" for key in keys}
    faults, used = [], set()
    for verb, stage in graph(root)["stages"].items():
        said = stage.get("params", [])
        faults += [
            f"dvc.yaml:{stage.lc.line + 1}: {verb} lists {key}, of which params.yaml says nothing"
            for key in said
            if key not in leaves
        ]
        used |= set(said)
    return faults + [f"params.yaml:1: no stage lists {key}" for key in sorted(leaves - used)]


def length_faults(root: Path) -> list[str]:
    """Files that nobody reads to the end."""
    counts = {file: len((root / file).read_text(encoding="utf-8").splitlines()) for file in sources(root)}
    return [
        f"{file}:{count}: over {MOST_LINES} lines"
        for file, count in counts.items()
        if count > MOST_LINES and file not in LONG
    ]


RECORD = "${{paths.code}}/{}.json"  # of a stage
RULES = [
    *(import_faults, verb_faults, kind_faults, picture_faults, load_faults),
    *(dependency_faults, package_version_faults, circle_faults, path_faults, param_faults, length_faults),
]
