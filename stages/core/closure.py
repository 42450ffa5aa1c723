"""The code that a stage runs: every file of ours that it imports, other files that it loads, and others' packages.

A stage depends on its record of this, which the stage `code` writes, and on no code besides. Comments, docstrings and
layout are no part of it, nor is a module that is looked up by a name which `params.yaml` does not hold.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from stages.core.errors import UserError

OURS = Path(__file__).parents[2]
TOPS = ("stages", "serving", "flows")
# A module's own lists, of paths below the project: files and packages whose bytes it reads or copies, and Python files
# that it runs in a process of their own.
COPIES, RUNS = "COPIES", "RUNS"
# How values are read is no dependency: the values are, by dvc.yaml's params.
PARSING = "stages.settings."
LOOKUPS = ("importlib.import_module", "import_module", "__import__")
LATE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SERVER_LOCK = "serving/triton/runtime/requirements.lock"  # read where a closure starts the server
SERVER = "server: "  # begins the name of a package in the server's own environment
LAUNCHER = "serving/triton/launcher.py"
# Packages that cannot change what a stage computes.
BESIDE = {"typer", "rich", "ruamel.yaml", "pydantic", "psutil"}
# Distributions whose modules have another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "ruamel": "ruamel.yaml",
    "google": "protobuf",
    "grpc": "grpcio",
}
# Of what packages require, that which computes; other requirements are recorded nowhere.
COMPUTES = {
    *("numpy", "scipy", "pandas", "pyarrow", "pillow", "scikit-learn", "matplotlib"),
    *("torch", "torchmetrics", "lightning", "pytorch-lightning", "safetensors"),
    *("onnx", "onnxscript", "onnx-ir", "onnxruntime", "tritonclient", "great-expectations"),
}
UNDECLARED = {"torch": ("numpy",)}  # what packages compute with though they do not require it


class Import(NamedTuple):
    """`module`: dotted, or a package's with ".*" where it is looked up by name. `late`: inside a function."""

    line: int
    module: str
    late: bool


class Closure(NamedTuple):
    """`code`: file -> digest of its syntax. `data`: file -> SHA-256 of its bytes. `packages`: name -> version."""

    code: dict[str, str]
    data: dict[str, str]
    packages: dict[str, str]

    def dump(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(self._asdict(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load(path: Path) -> Closure:
    """The record that `dump` wrote."""
    return Closure(**json.loads(path.read_text(encoding="utf-8")))


def closure(start: str, chosen: Mapping[str, Iterable[str]], root: Path = OURS) -> Closure:
    """What a file runs, at first hand or at any other.

    Args:
        start: the file, below `root`, the folder of our code.
        chosen: package -> those of its modules that a look-up by name may bring; a package that is not here: all.
    """
    files, others, data = {start}, set(), set()
    queue = [start]
    while queue:
        file = queue.pop()
        found: set[str] = set()
        for _, module, _ in imports(file, root):
            if module.partition(".")[0] not in TOPS:
                others.add(module.partition(".")[0])
            elif not f"{module}.".startswith(PARSING):
                found |= brought(module, chosen, root)
        data |= {path for entry in listed(file, COPIES, root) for path in _copied(entry, chosen, root)}
        found |= set(listed(file, RUNS, root))
        queue += found - files
        files |= found
    packages = versions(others - set(sys.stdlib_module_names))
    if LAUNCHER in files:
        packages |= {f"{SERVER}{name}": version for name, version in locked(root / SERVER_LOCK).items()}
    return Closure(
        {file: digest(_text(root / file)) for file in sorted(files)},
        {path: sha256(root / path) for path in sorted(data)},
        dict(sorted(packages.items())),
    )


def brought(module: str, chosen: Mapping[str, Iterable[str]], root: Path) -> set[str]:
    """The files that an import executes: the module's, and those of the packages around it."""
    package = module.removesuffix(".*")
    if package != module:
        return {
            file for name in chosen.get(package, _modules(package, root)) for file in _executed(package, name, root)
        }
    return set(_executed(*module.rpartition(".")[::2], root)) if "." in module else set()


def _executed(package: str, name: str, root: Path) -> Iterator[str]:
    dotted = f"{package}.{name}" if package else name
    if file := file_of(dotted, root):
        yield file
    parts = dotted.split(".")
    yield from (around for i in range(1, len(parts)) if (around := file_of(".".join(parts[:i]), root)))


def _modules(package: str, root: Path) -> list[str]:
    return sorted(path.stem for path in (root / package.replace(".", "/")).glob("*.py") if path.stem != "__init__")


def _copied(entry: str, chosen: Mapping[str, Iterable[str]], root: Path) -> Iterator[str]:
    package = entry.replace("/", ".")
    if package in chosen:
        yield f"{entry}/__init__.py"
        yield from (f"{entry}/{name}.py" for name in chosen[package])
    elif (root / entry).is_dir():
        below = (path for path in (root / entry).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        yield from (path.relative_to(root).as_posix() for path in below)
    else:
        yield entry


def listed(file: str, name: str, root: Path) -> list[str]:
    """What a module's COPIES or RUNS holds."""
    for node in _tree(_text(root / file)).body:
        if isinstance(node, ast.Assign) and name_of(node.targets[0]) == name:
            return list(ast.literal_eval(node.value))
    return []


@cache
def imports(file: str, root: Path, typing: bool = False) -> list[Import]:
    """Everything that a file imports, wherever and in whatever way; with `typing`, what is for types alone as well."""
    package = file.removesuffix(".py").replace("/", ".").rpartition(".")[0]
    text = _text(root / file)
    found = []
    for node, late, checking in _walk(_tree(text), whole="import_module" in text or "__import__" in text):
        if checking and not typing:
            continue
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name, late or checking) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.append(Import(node.lineno, whole if file_of(whole, root) else base, late or checking))
        elif isinstance(node, ast.Call) and name_of(node.func) in LOOKUPS:
            found.append(Import(node.lineno, _looked_up(node), late))
    return found


def file_of(module: str, root: Path) -> str:
    """A module's file below the root, or ""."""
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (root / file).is_file()), "")


def name_of(node: ast.AST) -> str:
    """A name, dotted or not, as it is written; "" of anything else."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _looked_up(call: ast.Call) -> str:
    """The module, or the package with ".*", of an import by name; "?" if only a run can tell."""
    name = call.args[0] if call.args else call
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        package, dot, _ = str(name.values[0].value).rpartition(".")
        return f"{package}.*" if dot else "?"
    return str(name.value) if isinstance(name, ast.Constant) else "?"


def _walk(
    tree: ast.AST, whole: bool, late: bool = False, checking: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every statement, or with `whole` every node; whether it runs late; whether a type checker alone reads it."""
    for node in ast.iter_child_nodes(tree):
        if not whole and isinstance(node, ast.expr):
            continue
        yield node, late, checking
        typing = isinstance(node, ast.If) and name_of(node.test) == "TYPE_CHECKING"
        yield from _walk(node, whole, late or isinstance(node, LATE), checking or typing)


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _text(path: Path) -> str:
    """A source.

    Raises:
        UserError: it is no Python that can be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _tree(text)
    except (SyntaxError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as Python: {error}") from error
    return text


@cache
def digest(source: str) -> str:
    """Of a source's syntax without comments, docstrings and places; the same on Python 3.11 and 3.12."""
    return hashlib.sha256(repr(_plain(_tree(source))).encode()).hexdigest()[:16]


def _plain(node: object) -> object:
    """A syntax tree as nested tuples. Fields that are empty are left out: newer Pythons have more of them."""
    if isinstance(node, list):
        return tuple(_plain(one) for one in node)
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
        node, clean=False
    ):
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):
        fields["values"] = _merged(node.values)
    fields.pop("kind", None)  # of a constant: whether it was written u"..."
    return type(node).__name__, *((name, _plain(value)) for name, value in fields.items() if value not in (None, []))


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, where Pythons cut its constants differently."""
    whole: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and whole and isinstance(whole[-1], ast.Constant):
            whole[-1] = ast.Constant(str(whole[-1].value) + str(value.value))
        else:
            whole.append(value)
    return [value for value in whole if not (isinstance(value, ast.Constant) and value.value == "")]


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Distribution -> version of what holds these modules, and of what that requires if it computes."""
    found: dict[str, str] = {}
    queue = [distribution(module) for module in modules]
    while queue:
        name = queue.pop()
        if name in found or name in BESIDE or (version := installed(name)) is None:
            continue
        found[name] = version
        queue += (_required(name) & COMPUTES) | set(UNDECLARED.get(name, ()))
    return found


@cache
def _required(name: str) -> set[str]:
    always = [line for line in metadata.requires(name) or () if "extra ==" not in line]
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in always}


def distribution(module: str) -> str:
    """The name under which a module's package is installed."""
    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


def installed(name: str) -> str | None:
    """The version of a distribution without its local part (`+cpu`); None where it is not here."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def locked(path: Path) -> dict[str, str]:
    """The versions of a lock file whose packages compute."""
    lines = (line.partition("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line)
    known = {name.strip(): version.split()[0].partition("+")[0] for name, _, version in lines}
    return {name: version for name, version in known.items() if name in COMPUTES or "triton" in name}


def sha256(path: Path) -> str:
    """Of a file's bytes, 16 digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def stale(record: Closure, root: Path) -> Iterator[str]:
    """Where files and packages are no longer what a record holds, a phrase each."""
    servers = [name for name in record.packages if name.startswith(SERVER)]
    server = locked(root / SERVER_LOCK) if servers else {}
    packages = {name: server.get(name.removeprefix(SERVER)) for name in servers}
    packages |= {name: installed(name) for name in record.packages.keys() - packages.keys()}
    now = Closure(
        {file: digest(_text(root / file)) for file in record.code if (root / file).is_file()},
        {file: sha256(root / file) for file in record.data if (root / file).is_file()},
        {name: version for name, version in packages.items() if version is not None},
    )
    return differences(record, now)


def differences(before: Closure, now: Closure) -> Iterator[str]:
    """What is otherwise, a phrase each."""
    for was, is_ in ((before.code, now.code), (before.data, now.data)):
        for file in sorted(was.keys() | is_.keys()):
            if was.get(file) != is_.get(file):
                yield f"{file} " + ("changed" if file in was and file in is_ else "came" if file in is_ else "is gone")
    for name in sorted(before.packages.keys() | now.packages.keys()):
        was_version, version = before.packages.get(name), now.packages.get(name)
        if was_version != version:
            yield f"{name} was {was_version or 'not used'} and is {version or 'not used'} now"
