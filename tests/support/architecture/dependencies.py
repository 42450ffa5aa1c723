"""Rules on imports: who may import whom, no circles, no heavy import for --help, and a version of each package."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from stages.core import closure
from stages.core.closure import file_of
from tests.support.architecture.tree import PROJECT, imports, room, sources, verbs, within

# Who may import whom, from the ground up: a file pattern, the packages of the project that it may import, and those of
# others besides the standard library (None: any). The first pattern that matches holds. A room may import itself.
GROUND = "stages.core stages.schema"

MIDDLE = f"{GROUND} stages.stats stages.tables stages.networks"
FLOORS = [
    # file, packages of the project, packages of others
    ("stages/core/errors.py", "", ""),
    ("stages/core/*", "", None),
    ("stages/schema/__init__.py", "", "numpy"),
    ("stages/schema/views/*", "stages.core.lookup", "numpy PIL"),
    ("stages/schema/*", "", "numpy PIL"),
    ("stages/stats/*", "stages.core", None),
    ("stages/tables/*", f"{GROUND} stages.stats", None),
    ("stages/networks/*", f"{GROUND} stages.stats", None),
    ("stages/trees/*", GROUND, None),
    ("stages/validation/expectations/*", "stages.core.lookup", ""),
    ("stages/validation/*", f"{GROUND} stages.stats", None),
    ("stages/training/devices.py", f"{MIDDLE} stages.settings.sections", None),
    ("stages/training/*", MIDDLE, None),
    ("stages/evaluation/*", f"{MIDDLE} stages.trees", None),
    ("serving/triton/backends/encode.py", "stages.schema", "numpy triton_python_backend_utils"),
    ("serving/triton/backends/router.py", "stages.schema", "numpy triton_python_backend_utils"),
    ("serving/triton/backends/*", "", "numpy onnxruntime triton_python_backend_utils"),
    ("serving/triton/runtime/*", "", ""),
    ("serving/triton/wire.py", "stages.schema", "numpy tritonclient"),
    ("serving/triton/*", f"{GROUND} stages.tables", None),
    ("stages/gating/perturbations/*", "stages.core.lookup stages.schema", "numpy"),
    ("stages/gating/*", f"{MIDDLE} stages.evaluation serving.triton", None),
    ("stages/settings/*", f"{MIDDLE} stages.validation stages.gating", None),
    ("stages/*", "stages serving.triton", None),
    ("serving/releases/*", f"{GROUND} stages.gating.verdict serving.triton", None),
    ("serving/client/predict.py", f"{GROUND} stages.settings stages.tables.sources", "numpy pyarrow"),
    ("serving/client/inputs.py", f"{GROUND} stages.tables.sources", None),
    (
        "serving/client/*",
        "stages.core.errors stages.schema serving.triton.wire",
        "numpy tritonclient grpc aiohttp pandas",
    ),
    ("serving/__init__.py", "", ""),
    ("flows/*", "stages serving", None),
]

BY_NAME = (
    *("stages/schema/kinds", "stages/schema/views", "stages/validation/expectations"),
    "stages/gating/perturbations",
    *("stages/tables/sources", "stages/networks/augmentations"),
    *("stages/networks/encoders", "stages/networks/trunks", "stages/networks/heads", "stages/trees"),
    *("stages/evaluation/metrics", "stages/evaluation/plots", "stages/evaluation/samples"),
    *("stages/evaluation/yardsticks/targets", "flows/intake/recipes"),
)
SHIPPED = (
    "stages/schema/__init__.py",
    "stages/schema/spelling.py",
    "stages/schema/kinds/",
)  # copied into every exported model

HEAVY = {
    *("torch", "lightning", "torchmetrics", "great_expectations", "sklearn", "scipy", "matplotlib", "pandas"),
    *("onnx", "onnxruntime", "tritonclient", "grpc", "prefect", "dvc"),
}


def import_faults(root: Path) -> list[str]:
    """Check imports against FLOORS, and against rules that hold everywhere."""
    faults = []
    commands = {f"stages.{verb}" for verb in verbs(root)}
    for file in sources(root):
        ours, others = next(allowed for pattern, *allowed in FLOORS if fnmatch(file, pattern))
        ours += " " + room(file).replace("/", ".")
        for line, module, _ in imports(root, file):
            top = module.partition(".")[0]
            folder = file_of(module.removesuffix(".*"), root).rpartition("/")[0]
            if module == "?" and file != "stages/core/lookup.py":
                fault = "imports by a name that is not in the source"
            elif module.endswith(".*") and folder not in BY_NAME:
                fault = f"looks up {module} by name: list it in BY_NAME here, and in stages/settings/choices.py"
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
                and Path(file_of(module, root)).name
                not in ("__init__.py", Path(file).name)  # a module of the same kind
                and not module.endswith(".*")
            ):
                fault = f"imports {module} itself, which is looked up by name"
            else:
                continue
            if fault:
                faults.append(f"{file}:{line}: {fault}")
    return faults


def load_faults(root: Path) -> list[str]:
    """Check what `python -m stages.VERB --help` imports, without running it."""
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


def package_version_faults(root: Path) -> list[str]:
    """Every imported package has a version to record, except the server's own module."""
    faults = []
    for file in sources(root):
        for line, module, _ in imports(root, file):
            top = module.partition(".")[0]
            exempt = top in (*PROJECT, *sys.stdlib_module_names, "triton_python_backend_utils", "?")
            if not exempt and closure.installed(closure.distribution(top)) is None:
                faults.append(f"{file}:{line}: no package holds {top}: see DISTRIBUTIONS in stages/core/closure.py")
    return faults


def circle_faults(root: Path) -> list[str]:
    """Files, and rooms, that import one another in a circle; late imports count too.

    stages/ and serving/ do import each other, but through different rooms: the verbs and gating import serving/triton,
    and serving/releases imports gating's verdict.
    """
    faults = []
    for level in (lambda file: file, room):
        arrows: dict[str, set[str]] = {}
        for file in sources(root):
            for _, module, _ in imports(root, file):
                looked_up = module.endswith(".*")
                files = closure.executed_files(module, {}, root) if looked_up else [file_of(module, root)]
                for other in filter(None, files):
                    if not (other.endswith("/__init__.py") and file.startswith(other.removesuffix("__init__.py"))):
                        arrows.setdefault(level(file), set()).add(level(other))
        try:
            list(TopologicalSorter({at: to - {at} for at, to in arrows.items()}).static_order())
        except CycleError as error:
            circle = error.args[1][:-1]
            first = circle.index(min(circle))
            faults.append(f"{min(circle)}:1: a circle of imports: {' -> '.join(circle[first:] + circle[:first])}")
    return faults
