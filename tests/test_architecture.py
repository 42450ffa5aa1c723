"""The README's picture of the code, held against the sources: who imports whom, and dvc.yaml against the imports.

Each rule is a function of a tree's root that returns faults, "FILE:LINE: what is wrong". The tests at the end break a
copy of the tree once for each rule.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from serving.repository import ENCODE_CODE

ROOT = Path(__file__).parent.parent
PROJECT = ("stages", "serving", "flows")
LATE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
LOOKUPS = ("importlib.import_module", "import_module", "__import__")

# Who may import what of ours, and what of others beside the standard library: the first line that fits a file holds.
# None: anything.
MAY_IMPORT = [
    # file, ours, others'
    ("stages/errors.py", "", ""),
    ("stages/schema.py", "stages.kinds", "numpy"),  # which it looks up by name
    ("stages/manifest.py", "stages.errors stages.cached", ""),
    ("stages/parity.py", "stages.schema", "numpy"),
    ("stages/host.py", "", ""),
    ("stages/kinds/*", "stages.schema stages.kinds", "numpy PIL"),
    ("stages/expectations/*", "stages.expectations", ""),
    ("stages/changes/*", "stages.schema stages.kinds stages.changes", "numpy"),
    ("stages/networks/*", "stages.schema stages.kinds stages.networks", None),
    ("stages/sources/*", "stages.schema stages.errors stages.columns stages.sources", None),
    ("stages/*", "stages serving.repository serving.launcher serving.wire", None),
    ("serving/backends/*", "", "numpy onnxruntime triton_python_backend_utils"),
    ("serving/runtime/*", "", ""),
    ("serving/encode.py", "stages.schema", "numpy triton_python_backend_utils"),
    ("serving/router.py", "stages.schema", "numpy triton_python_backend_utils"),
    (
        "serving/cli.py",
        "stages.schema stages.manifest stages.errors stages.command stages.inputs stages.interrupts stages.lockfile"
        " stages.params stages.preflight serving",
        None,
    ),
    (
        "serving/client/predict.py",
        "stages.errors stages.command stages.settings stages.sources serving.client",
        "numpy pyarrow",
    ),
    ("serving/client/inputs.py", "stages.schema stages.errors stages.sources serving.client", None),
    ("serving/client/*", "stages.schema serving.wire serving.client", "numpy tritonclient grpc aiohttp pandas"),
    ("serving/wire.py", "stages.schema", "numpy tritonclient"),
    (
        "serving/*",
        "stages.schema stages.kinds stages.manifest stages.parity stages.verdict stages.host stages.errors"
        " stages.command stages.lockfile stages.cached serving",
        None,
    ),
    ("flows/*", "stages serving flows", None),
]
BY_NAME = ("stages/kinds", "stages/expectations", "stages/changes", "stages/sources", "stages/networks")
# The files that know what a picture is, beside those that bear the kind's name.
PICTURES = ("stages/fetch.py", "stages/sources/image_folder.py", "stages/sources/idx.py", "stages/networks/cnn.py")
PICTURE_WORDS = {"image", "images", "pixel", "pixels"}
HEAVY = {
    *("torch", "lightning", "torchmetrics", "great_expectations", "sklearn", "scipy", "matplotlib", "pandas"),
    *("onnx", "onnxruntime", "tritonclient", "grpc", "prefect", "dvc"),
}
# What a file reads of our code without importing it.
COPIES = {
    "stages/export.py": (
        "stages/__init__.py",
        "stages/schema.py",
        "stages/kinds",
        "serving/encode.py",
        "serving/backends/python",
    ),
    "serving/launcher.py": ("serving/backends", "serving/runtime/start.py"),
}
PARSING = (
    "stages/gate_settings.py",
    "stages/params.py",
    "stages/section.py",
    "stages/settings.py",
)  # values are dependencies, by dvc.yaml's params; how they are read is none
MOST_LINES = 450
LONG = {"flows/pipeline.py"}  # one driver, read downward


class Import(NamedTuple):
    """`module`: dotted, or a folder's with "*" where it is looked up by name. `late`: inside a function."""

    line: int
    module: str
    late: bool


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


def is_file(root: Path, module: str) -> str:
    """A module's file below the root, or ""."""
    path = module.replace(".", "/")
    return next((found for found in (f"{path}.py", f"{path}/__init__.py") if (root / found).is_file()), "")


def imports(root: Path, file: str) -> list[Import]:
    """Everything that a file imports, wherever it stands in it and in whatever way."""
    package = file.removesuffix(".py").replace("/", ".").rpartition(".")[0]
    found = []
    for node, late in nodes(root, file):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name, late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.append(Import(node.lineno, whole if is_file(root, whole) else base, late))
        elif isinstance(node, ast.Call) and name_of(node.func) in LOOKUPS:
            found.append(Import(node.lineno, looked_up(node), late))
    return found


def name_of(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def looked_up(call: ast.Call) -> str:
    """The module, or the folder with "*", of an import by name; "?" if only a run can tell."""
    said = call.args[0] if call.args else call
    if isinstance(said, ast.JoinedStr) and isinstance(said.values[0], ast.Constant):
        folder, dot, rest = str(said.values[0].value).rpartition(".")
        return f"{folder}.*" if dot and not rest else "?"
    return str(said.value) if isinstance(said, ast.Constant) else "?"


def within(module: str, allowed: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed.split())


def import_faults(root: Path) -> list[str]:
    """Imports against MAY_IMPORT, and the rules that hold everywhere."""
    faults = []
    commands = {f"stages.{verb}" for verb in verbs(root)}
    for file in sources(root):
        ours, others = next(said for pattern, *said in MAY_IMPORT if fnmatch(file, pattern))
        for line, module, _ in imports(root, file):
            top = module.partition(".")[0]
            folder = is_file(root, module.removesuffix(".*")).rpartition("/")[0]
            if module == "?":
                fault = "imports by a name that is not written here"
            elif module.endswith(".*") and folder not in BY_NAME:
                fault = f"looks up {module} by name: list it in BY_NAME here, and whole in dvc.yaml"
            elif top not in PROJECT:
                free = others is None or top in sys.stdlib_module_names or top in others.split()
                fault = "" if free else f"may not import {top}"
            elif module in commands:
                fault = f"imports the verb {module}: stages share files alone"
            elif top == "flows" and not file.startswith("flows/"):
                fault = "nothing imports flows/"
            elif not within(module, ours) and module not in PROJECT:
                fault = f"may not import {module}"
            elif (
                folder in BY_NAME[:3]
                and folder not in file
                and Path(is_file(root, module)).name not in ("__init__.py", Path(file).name)  # a kind's own file
                and not module.endswith(".*")
            ):
                fault = f"imports {module} itself, which is looked up by name"
            else:
                continue
            if fault:
                faults.append(f"{file}:{line}: {fault}")
    return faults


def verb_faults(root: Path) -> list[str]:
    """Each verb is a file that runs, and no noun does."""
    commands = {f"stages/{verb}.py" for verb in verbs(root)}
    faults = [f"dvc.yaml: there is no {file}" for file in sorted(commands - set(sources(root)))]
    for file in sources(root):
        runs = 'if __name__ == "__main__":' in (root / file).read_text(encoding="utf-8")
        if fnmatch(file, "stages/*") and runs != (file in commands):
            faults.append(
                f"{file}:1: " + ("runs, but is no stage of dvc.yaml" if runs else "is a stage that never runs")
            )
    return faults


def kinds(root: Path) -> dict[str, set[str]]:
    """A kind's name as params say it: the files that are its own."""
    found = {}
    for path in (root / "stages/kinds").glob("*.py"):
        if path.stem != "__init__":
            short = path.stem.removeprefix("target_")
            own = {f"stages/{folder}/{path.stem}.py" for folder in ("kinds", "expectations", "changes")}
            found[short] = own | {f"stages/networks/{role}_{short}.py" for role in ("augment", "head")}
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
            queue += [name for _, module in early if (name := is_file(root, module)) and name not in seen]
            heavy = [(line, module) for line, module in early if module.partition(".")[0] in HEAVY]
            faults += [f"{file}:{line}: {verb} loads {module} even for --help" for line, module in heavy]
    return faults


def files_of(root: Path, module: str) -> list[str]:
    """The files that an import may bring: all of a folder where names are looked up."""
    file = is_file(root, module.removesuffix(".*"))
    folder = file.rpartition("/")[0]
    if folder in BY_NAME:
        return [name for name in sources(root) if name.startswith(f"{folder}/")]
    return [file] if file else []


def needed(root: Path, verb: str) -> dict[str, str]:
    """The code that a stage depends on, as dvc.yaml writes it: where that comes from."""
    start = f"stages/{verb}.py"
    found = {start: "dvc.yaml:1"}
    files = {start: "dvc.yaml:1"}
    queue = [start]
    while queue:
        file = queue.pop()
        for path in COPIES.get(file, ()):
            found.setdefault(path, f"{file}:1")
        for line, module, _ in imports(root, file):
            for name in files_of(root, module):
                if name not in files and name not in PARSING:
                    files[name] = f"{file}:{line}"
                    queue.append(name)
    for name, where in files.items():
        folder = name.rpartition("/")[0]
        if not (name.endswith("/__init__.py") and folder not in BY_NAME):  # they hold a docstring alone: see below
            found.setdefault(folder if folder in BY_NAME else name, where)
    return found


def package_faults(root: Path) -> list[str]:
    """A package's own file is nobody's dependency, so it says nothing."""
    faults = []
    for top in PROJECT:
        file = f"{top}/__init__.py"
        if len(ast.parse((root / file).read_text(encoding="utf-8")).body) > 1:
            faults.append(f"{file}:1: holds code, which dvc.yaml lists nowhere")
    return faults


def dependency_faults(root: Path) -> list[str]:
    """Each stage's `deps` against what it imports: none missing, none too many."""
    faults = []
    for verb, stage in graph(root)["stages"].items():
        listed = {path: stage["deps"].lc.item(i)[0] + 1 for i, path in enumerate(stage["deps"])}
        code = {path: line for path, line in listed.items() if path.partition("/")[0] in PROJECT}
        wanted = needed(root, verb)
        where = stage.lc.key("deps")[0] + 1
        faults += [
            f"dvc.yaml:{where}: {verb} lacks {path}, imported at {wanted[path]}"
            for path in sorted(set(wanted) - set(code))
        ]
        faults += [f"dvc.yaml:{code[path]}: {verb} does not use {path}" for path in sorted(set(code) - set(wanted))]
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
        data, made = [path for path in stage["deps"] if path.partition("/")[0] not in PROJECT], plain(stage["outs"])
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


RULES = [
    *(import_faults, verb_faults, kind_faults, picture_faults, load_faults, package_faults),
    *(dependency_faults, path_faults, param_faults, length_faults),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule):
    assert rule(ROOT) == []


def test_no_command_loads_what_its_help_does_not_need():
    """What the libraries that stages do load bring with them, as `load_faults` cannot see."""
    modules = [f"stages.{verb}" for verb in verbs(ROOT)]
    program = f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(ran.stdout.split()) == set()


def test_export_depends_on_what_it_copies():
    copied = {path if path.rpartition("/")[0] not in BY_NAME else "stages/kinds" for path in ENCODE_CODE}
    assert copied < set(COPIES["stages/export.py"])


@pytest.fixture
def tree(tmp_path):
    """A copy of the tree, to be broken."""
    for top in PROJECT:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


# A rule, a file, what is put at its end, and the fault that must be found there: in the line marked "# !", if any is.
ADDED = [
    (import_faults, "stages/gate.py", "from stages import verify  # !", "imports the verb stages.verify"),
    (import_faults, "stages/gate.py", "def f():\n    from . import verify  # !", "imports the verb stages.verify"),
    (import_faults, "stages/table.py", "import stages.ingest  # !", "imports the verb stages.ingest"),
    (import_faults, "stages/table.py", "from .ingest import encode  # !", "imports the verb stages.ingest"),
    (import_faults, "stages/networks/mlp.py", "from ..train import build  # !", "imports the verb stages.train"),
    (import_faults, "flows/data.py", "from stages.gate import judge  # !", "imports the verb stages.gate"),
    (import_faults, "serving/cli.py", "def f():\n    from flows import data  # !", "nothing imports flows/"),
    (import_faults, "stages/schema.py", "import PIL  # !", "may not import PIL"),
    (import_faults, "stages/schema.py", "from stages import errors  # !", "may not import stages.errors"),
    (import_faults, "stages/schema.py", "import stages.kinds.image  # !", "imports stages.kinds.image itself"),
    (import_faults, "stages/manifest.py", "from stages.schema import Schema  # !", "may not import stages.schema"),
    (import_faults, "stages/kinds/image.py", "def f():\n    import torch  # !", "may not import torch"),
    (import_faults, "stages/kinds/image.py", "from stages import errors  # !", "may not import stages.errors"),
    (import_faults, "stages/expectations/image.py", "import numpy  # !", "may not import numpy"),
    (import_faults, "stages/changes/image.py", "import stages.kinds.text  # !", "imports stages.kinds.text itself"),
    (import_faults, "stages/verify.py", "import stages.changes.image  # !", "imports stages.changes.image itself"),
    (import_faults, "stages/networks/cnn.py", "from stages import arrays  # !", "may not import stages.arrays"),
    (import_faults, "serving/client/client.py", "from stages.table import Values  # !", "may not import stages.table"),
    (import_faults, "serving/encode.py", "import pyarrow  # !", "may not import pyarrow"),
    (import_faults, "stages/export.py", "from serving import cli  # !", "may not import serving.cli"),
    (import_faults, "stages/train.py", "importlib.import_module(name)  # !", "imports by a name that is not written"),
    (
        import_faults,
        "stages/train.py",
        'import_module(f"stages.presets.{x}")  # !',
        "looks up stages.presets.* by name",
    ),
    (import_faults, "stages/arrays.py", '__import__("stages.gate")  # !', "imports the verb stages.gate"),
    (verb_faults, "stages/table.py", 'if __name__ == "__main__":\n    pass', "is no stage"),
    (kind_faults, "stages/ingest.py", 'x = kind == "image"  # !', "branches on the kind 'image'"),
    (kind_faults, "stages/gate.py", 'x = "target_class" != target.kind  # !', "branches on the kind 'target_class'"),
    (kind_faults, "stages/gate.py", 'x = kind in ("image", "sound")  # !', "branches on the kind 'image'"),
    (kind_faults, "serving/client/client.py", 'match x:\n    case 1 | "class":  # !\n        pass', "the kind 'class'"),
    (
        kind_faults,
        "serving/client/client.py",
        'x = {"image": 1, "class": 2}[kind]  # !',
        "branches on the kind 'image'",
    ),
    (kind_faults, "stages/networks/cnn.py", 'x = name.endswith("class")  # !', "branches on the kind 'class'"),
    (picture_faults, "stages/evaluate.py", "def f():\n    from PIL import Image  # !", "loads Pillow"),
    (picture_faults, "serving/client/client.py", "def f(pixels):  # !\n    pass", "pixels is a picture's business"),
    (picture_faults, "stages/learner.py", "x = batch.image_size  # !", "image_size is a picture's business"),
    (load_faults, "stages/table.py", "import torch  # !", "loads torch even for --help"),
    (load_faults, "serving/launcher.py", "with x:\n    import onnx  # !", "verify loads onnx even for --help"),
    (package_faults, "serving/__init__.py", "VERSION = 1", "holds code"),
    (path_faults, "stages/gate.py", 'x = "see reports/times.json"  # !', "writes the path reports/times.json again"),
    (length_faults, "stages/table.py", "x = 1\n" * MOST_LINES, f"over {MOST_LINES} lines"),
]


@pytest.mark.parametrize(("rule", "file", "lines", "fault"), ADDED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_file_is_found(tree, rule, file, lines, fault):
    text = (tree / file).read_text(encoding="utf-8") + lines + "\n"
    (tree / file).write_text(text, encoding="utf-8")
    place = next((i for i, line in enumerate(text.splitlines(), 1) if line.endswith("  # !")), r"\d+")
    found = rule(tree)
    assert [one for one in found if re.match(f"{file}:{place}: ", one) and fault in one], found


# A rule, what is changed in dvc.yaml or params.yaml, and the fault that must be found.
CHANGED = [
    (
        dependency_faults,
        "      - stages/batches.py\n",
        "",
        r"dvc.yaml:\d+: train lacks stages/batches.py, imported at stages/train.py:\d+",
    ),
    (
        dependency_faults,
        "      - serving/encode.py\n",
        "",
        r"export lacks serving/encode.py, imported at stages/export.py:1",
    ),
    (
        dependency_faults,
        "      - stages/expectations\n",
        "",
        r"validate lacks stages/expectations, imported at stages/validate.py:\d+",
    ),
    (
        dependency_faults,
        "      - stages/fetch.py\n",
        "      - stages/fetch.py\n      - stages/table.py\n",
        r"dvc.yaml:\d+: fetch does not use stages/table.py",
    ),
    (
        path_faults,
        "stages.fetch ${paths.builtin}",
        "stages.fetch data/builtin",
        r"data/builtin of its command is neither",
    ),
    (
        path_faults,
        "stages.fetch ${paths.builtin}",
        "stages.fetch",
        r"fetch: its command does not take \$\{paths.builtin\}",
    ),
    (path_faults, "python -m stages.fetch", "python -m stages.ingest", "fetch runs python -m stages.ingest"),
    (path_faults, "table: data/table.parquet", "table: data/raw/table.parquet", "table lies in data/raw"),
    (path_faults, "table: data/table.parquet", "table: data/arrays/table.parquet", "arrays and table overlap"),
    (
        path_faults,
        "    outs:\n      - ${paths.builtin}",
        "    outs:\n      - ${data.path}",
        r"the output \$\{data.path\} depends on params",
    ),
    (param_faults, "params: [data.builtin]", "params: [data.bultin]", "fetch lists data.bultin, of which"),
    (param_faults, "      - split.val\n", "", "params.yaml:1: no stage lists split.val"),
    (
        verb_faults,
        "stages:\n",
        "stages:\n  compress: {cmd: python -m stages.compress}\n",
        "there is no stages/compress.py",
    ),
]


@pytest.mark.parametrize(("rule", "old", "new", "fault"), CHANGED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_graph_is_found(tree, rule, old, new, fault):
    before = (tree / "dvc.yaml").read_text(encoding="utf-8")
    assert old in before
    (tree / "dvc.yaml").write_text(before.replace(old, new), encoding="utf-8")
    assert [one for one in rule(tree) if re.search(fault, one)]
