"""The code that a stage runs: the project's files that it imports, other files that it loads, and installed packages.

The stage `code` writes a record of this for each other stage, and that stage depends on the record instead of the code.
The record leaves out comments, docstrings, layout, and modules looked up by a name that `params.yaml` does not choose.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from stages.core import files
from stages.core.errors import UserError

ROOT = Path(__file__).parents[2]
PROJECT = ("stages", "serving", "flows")
# Lists of paths that a module may define: files and packages whose bytes it reads or copies, and Python files that it
# runs in another process.
COPIES, RUNS = "COPIES", "RUNS"
# The code that parses values is no dependency. The values are, under `params` in dvc.yaml.
PARSING = "stages.settings."
LOOKUPS = ("importlib.import_module", "import_module", "__import__", "load_module")
LATE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SERVER_LOCK = "serving/triton/runtime/requirements.lock"  # read where a closure starts the server
SERVER = "server: "  # prefix of a package in the server's own environment
LAUNCHER = "serving/triton/launcher.py"
# Packages that cannot change what a stage computes.
NEUTRAL = {"typer", "rich", "ruamel.yaml", "pydantic", "psutil"}
# Distributions whose modules have another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "ruamel": "ruamel.yaml",
    "google": "protobuf",
    "grpc": "grpcio",
}
# The packages that compute. Of what a package requires, only these are recorded.
COMPUTES = {
    *("numpy", "scipy", "pandas", "pyarrow", "pillow", "scikit-learn", "matplotlib"),
    *("torch", "torchmetrics", "lightning", "pytorch-lightning", "safetensors"),
    *("onnx", "onnxscript", "onnx-ir", "onnxruntime", "tritonclient", "great-expectations"),
}
UNDECLARED = {"torch": ("numpy",)}  # packages that others compute with although they do not require them


class Import(NamedTuple):
    """An import. `module`: its dotted name, or "PACKAGE.*" for a look-up by name. `late`: inside a function."""

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
    """Read the record that `dump` wrote."""
    return Closure(**json.loads(path.read_text(encoding="utf-8")))


def closure(start: str, chosen: Mapping[str, Iterable[str]], root: Path = ROOT) -> Closure:
    """All that a file runs, directly or through others.

    Args:
        start: the file, relative to `root`, the project's folder.
        chosen: package -> its modules that a look-up by name may load; all modules of a package that is not here.
    """
    files, others, data = {start}, set(), set()
    queue = [start]
    while queue:
        file = queue.pop()
        more: set[str] = set()
        for _, module, _ in imports(file, root):
            if module.partition(".")[0] not in PROJECT:
                others.add(module.partition(".")[0])
            elif not f"{module}.".startswith(PARSING):
                more |= executed_files(module, chosen, root)
        data |= {path for entry in listed_paths(file, COPIES, root) for path in _copied(entry, chosen, root)}
        more |= set(listed_paths(file, RUNS, root))
        queue += more - files
        files |= more
    packages = versions(others - set(sys.stdlib_module_names))
    if LAUNCHER in files:
        packages |= {f"{SERVER}{name}": version for name, version in locked(root / SERVER_LOCK).items()}
    return Closure(
        {file: digest(_text(root / file)) for file in sorted(files)},
        {path: sha256(root / path) for path in sorted(data)},
        dict(sorted(packages.items())),
    )


def executed_files(module: str, chosen: Mapping[str, Iterable[str]], root: Path) -> set[str]:
    """The files that an import executes: the module and the packages around it."""
    package = module.removesuffix(".*")
    if package != module:
        return {
            file
            for name in chosen.get(package, _modules(package, root))
            for file in _files_of_module(package, name, root)
        }
    return set(_files_of_module(*module.rpartition(".")[::2], root)) if "." in module else set()


def _files_of_module(package: str, name: str, root: Path) -> Iterator[str]:
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


def listed_paths(file: str, name: str, root: Path) -> list[str]:
    """The value of COPIES or RUNS in a module."""
    for node in _tree(_text(root / file)).body:
        if isinstance(node, ast.Assign) and name_of(node.targets[0]) == name:
            return list(ast.literal_eval(node.value))
    return []


@cache
def imports(file: str, root: Path, typing: bool = False) -> list[Import]:
    """All imports of a file, late ones and look-ups by name included; with `typing`, also those for type checkers."""
    package = file.removesuffix(".py").replace("/", ".").rpartition(".")[0]
    text = _text(root / file)
    result = []
    for node, late, checking in _walk(_tree(text), whole=any(name in text for name in LOOKUPS)):
        if checking and not typing:
            continue
        if isinstance(node, ast.Import):
            result += [Import(node.lineno, alias.name, late or checking) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                dotted = f"{base}.{alias.name}"
                result.append(Import(node.lineno, dotted if file_of(dotted, root) else base, late or checking))
        elif isinstance(node, ast.Call) and name_of(node.func) in LOOKUPS:
            result.append(Import(node.lineno, _module_looked_up(node), late))
    return result


def file_of(module: str, root: Path) -> str:
    """The file of a module of the project, relative to the root; "" if there is none."""
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (root / file).is_file()), "")


def name_of(node: ast.AST) -> str:
    """The source of a name or attribute, such as `a.b`; "" for any other node."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _module_looked_up(call: ast.Call) -> str:
    """The module that a look-up by name loads, or "PACKAGE.*"; "?" if it cannot be read from the source."""
    name = call.args[0] if call.args else call
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        package, dot, _ = str(name.values[0].value).rpartition(".")
        return f"{package}.*" if dot else "?"
    return str(name.value) if isinstance(name, ast.Constant) else "?"


def _walk(
    tree: ast.AST, whole: bool, late: bool = False, checking: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Yield each statement (with `whole` each node), whether it is in a function, and whether it is for types only."""
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
    """The text of a Python file.

    Raises:
        UserError: it cannot be read or parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _tree(text)
    except (SyntaxError, ValueError, OSError) as error:
        raise UserError("code-unreadable", f"{path} cannot be read as Python: {error}") from error
    return text


@cache
def digest(source: str) -> str:
    """A hash of a source's syntax tree without comments, docstrings and positions, equal on Python 3.11 and 3.12."""
    return hashlib.sha256(repr(_plain(_tree(source))).encode()).hexdigest()[:16]


def _plain(node: object) -> object:
    """A syntax tree as nested tuples, without empty fields, of which newer Pythons have more."""
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
    fields.pop("kind", None)  # whether a constant was written u"..."
    return type(node).__name__, *((name, _plain(value)) for name, value in fields.items() if value not in (None, []))


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string with adjacent constants merged: Pythons split them differently."""
    parts: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(str(parts[-1].value) + str(value.value))
        else:
            parts.append(value)
    return [value for value in parts if not (isinstance(value, ast.Constant) and value.value == "")]


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Distribution -> version of the packages of these modules, and of the packages they require that compute."""
    result: dict[str, str] = {}
    queue = [distribution(module) for module in modules]
    while queue:
        name = queue.pop()
        if name in result or name in NEUTRAL or (version := installed(name)) is None:
            continue
        result[name] = version
        queue += (_required(name) & COMPUTES) | set(UNDECLARED.get(name, ()))
    return result


@cache
def _required(name: str) -> set[str]:
    always = [line for line in metadata.requires(name) or () if "extra ==" not in line]
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in always}


def distribution(module: str) -> str:
    """The name of the distribution that installs a module."""
    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


def installed(name: str) -> str | None:
    """The version of a distribution without its local part (`+cpu`); None if it is not installed."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def locked(path: Path) -> dict[str, str]:
    """Package -> version of those in a lock file that compute."""
    lines = (line.partition("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line)
    packages = {name.strip(): version.split()[0].partition("+")[0] for name, _, version in lines}
    return {name: version for name, version in packages.items() if name in COMPUTES or "triton" in name}


def sha256(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    return files.sha256(path)[:16]


def matches(content: bytes, digests: Iterable[str]) -> bool:
    """Whether a file has each of these digests, of its syntax or of its bytes."""
    try:
        syntax = digest(content.decode())
    except (SyntaxError, ValueError):
        syntax = ""
    return set(digests) <= {syntax, hashlib.sha256(content).hexdigest()[:16]}


def stale(record: Closure, root: Path) -> Iterator[str]:
    """Where files and packages now differ from a record, a phrase for each difference."""
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


def differences(old_record: Closure, new_record: Closure) -> Iterator[str]:
    """The differences of two records, a phrase each."""
    for old, new in ((old_record.code, new_record.code), (old_record.data, new_record.data)):
        for file in sorted(old.keys() | new.keys()):
            if old.get(file) != new.get(file):
                yield f"{file} {change(file, old, new)}"
    for name in sorted(old_record.packages.keys() | new_record.packages.keys()):
        old_version, new_version = old_record.packages.get(name), new_record.packages.get(name)
        if old_version != new_version:
            yield f"{name} was {old_version or 'not used'} and is {new_version or 'not used'} now"


def change(name: str, old: Container[str], new: Container[str]) -> str:
    """What happened to a file that differs between two sets of files."""
    return "changed" if name in old and name in new else "was added" if name in new else "was removed"
