"""The rules of the tree hold: who imports whom, dvc.yaml and params.yaml.

Each rule is a function of a tree's root that returns faults, "FILE:LINE: what is wrong". The tests at the end break a
copy of the tree in each way that a rule must find.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from serving.triton.repository import ENCODE_CODE
from stages.export import COPIES
from tests.support.architecture import (
    RULES,
    circle_faults,
    dependency_faults,
    import_faults,
    kind_faults,
    length_faults,
    load_faults,
    package_version_faults,
    param_faults,
    path_faults,
    picture_faults,
    read_key_faults,
    verb_faults,
)
from tests.support.architecture.dependencies import BY_NAME, HEAVY
from tests.support.architecture.files import MOST_LINES
from tests.support.architecture.tree import PROJECT, verbs
from tests.support.project import ROOT


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_follows(rule):
    assert rule(ROOT) == []


def test_no_stage_loads_a_heavy_library_for_its_help():
    """Not even through another library, which `load_faults` cannot see."""
    modules = [f"stages.{verb}" for verb in verbs(ROOT)]
    program = f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(ran.stdout.split()) == set()


def test_export_records_the_bytes_of_what_it_copies():
    copied = {path if path.rpartition("/")[0] not in BY_NAME else BY_NAME[0] for path in ENCODE_CODE}
    assert copied < set(COPIES)


@pytest.fixture
def tree(tmp_path):
    """A copy of the tree, to break."""
    for top in PROJECT:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


# A rule, a file, lines that are appended to it, and the fault that must be found: in the line marked "# !", if any.
ADDED = [
    (import_faults, "stages/gate.py", "from stages import verify  # !", "imports the verb stages.verify"),
    (import_faults, "stages/gate.py", "def f():\n    from . import verify  # !", "imports the verb stages.verify"),
    (import_faults, "stages/tables/table.py", "import stages.ingest  # !", "imports the verb stages.ingest"),
    (import_faults, "stages/tables/table.py", "from ..ingest import encode  # !", "imports the verb stages.ingest"),
    (
        import_faults,
        "stages/networks/encoders/mlp.py",
        "from ...train import build  # !",
        "imports the verb stages.train",
    ),
    (import_faults, "flows/intake/add.py", "from stages.gate import judge  # !", "imports the verb stages.gate"),
    (import_faults, "serving/releases/store.py", "def f():\n    from flows import cli  # !", "nothing imports flows/"),
    (import_faults, "stages/schema/__init__.py", "import PIL  # !", "may not import PIL"),
    (
        import_faults,
        "stages/schema/__init__.py",
        "from stages.core import errors  # !",
        "may not import stages.core.errors",
    ),
    (
        import_faults,
        "stages/schema/__init__.py",
        "import stages.schema.kinds.image  # !",
        "imports stages.schema.kinds.image itself",
    ),
    (
        import_faults,
        "serving/triton/manifest.py",
        "from stages.gating import verdict  # !",
        "may not import stages.gating.verdict",
    ),
    (import_faults, "stages/schema/kinds/image.py", "def f():\n    import torch  # !", "may not import torch"),
    (
        import_faults,
        "stages/schema/kinds/image.py",
        "from stages.core import errors  # !",
        "may not import stages.core.errors",
    ),
    (
        import_faults,
        "stages/schema/kinds/image.py",
        "def f():\n    from stages.schema.views import of  # !",
        "ships with a model, and stages.schema.views does not",
    ),
    (import_faults, "stages/validation/expectations/image.py", "import numpy  # !", "may not import numpy"),
    (
        import_faults,
        "stages/gating/perturbations/image.py",
        "import stages.schema.kinds.text  # !",
        "imports stages.schema.kinds.text itself",
    ),
    (
        import_faults,
        "stages/verify.py",
        "import stages.gating.perturbations.image  # !",
        "imports stages.gating.perturbations.image itself",
    ),
    (
        import_faults,
        "stages/networks/encoders/cnn.py",
        "from stages.tables import arrays  # !",
        "may not import stages.tables.arrays",
    ),
    (
        import_faults,
        "serving/client/client.py",
        "from stages.tables.table import Values  # !",
        "may not import stages.tables.table",
    ),
    (import_faults, "serving/triton/backends/encode.py", "import pyarrow  # !", "may not import pyarrow"),
    (
        import_faults,
        "stages/export.py",
        "from serving.releases import store  # !",
        "may not import serving.releases.store",
    ),
    (
        import_faults,
        "stages/train.py",
        "importlib.import_module(name)  # !",
        "imports by a name that is not in the source",
    ),
    (
        import_faults,
        "stages/train.py",
        'import_module(f"stages.presets.{x}")  # !',
        "looks up stages.presets.* by name",
    ),
    (import_faults, "stages/tables/arrays.py", '__import__("stages.gate")  # !', "imports the verb stages.gate"),
    (package_version_faults, "stages/train.py", "import rapids  # !", "no package holds rapids"),
    (verb_faults, "stages/sample_sheet.py", "x = 1", "is no stage of dvc.yaml: put it into one of the folders"),
    (circle_faults, "stages/core/dvc_files.py", "from stages.core import lockfile", "stages/core/lockfile.py"),
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
    (kind_faults, "stages/networks/encoders/cnn.py", 'x = name.endswith("class")  # !', "branches on the kind 'class'"),
    (picture_faults, "stages/evaluate.py", "def f():\n    from PIL import Image  # !", "loads Pillow"),
    (picture_faults, "serving/client/client.py", "def f(pixels):  # !\n    pass", "pixels is a picture's business"),
    (picture_faults, "stages/training/learner.py", "x = batch.image_size  # !", "image_size is a picture's business"),
    (load_faults, "stages/tables/table.py", "import torch  # !", "loads torch even for --help"),
    (load_faults, "serving/triton/launcher.py", "with x:\n    import onnx  # !", "verify loads onnx even for --help"),
    (path_faults, "stages/gate.py", 'x = "see reports/times.json"  # !', "writes the path reports/times.json again"),
    (length_faults, "stages/tables/table.py", "x = 1\n" * MOST_LINES, f"over {MOST_LINES} lines"),
]


@pytest.mark.parametrize(("rule", "file", "lines", "fault"), ADDED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_file_is_found(tree, rule, file, lines, fault):
    (tree / file).touch()
    text = (tree / file).read_text(encoding="utf-8") + lines + "\n"
    (tree / file).write_text(text, encoding="utf-8")
    place = next((i for i, line in enumerate(text.splitlines(), 1) if line.endswith("  # !")), r"\d+")
    faults = rule(tree)
    assert [each for each in faults if re.match(f"{file}:{place}: ", each) and fault in each], faults


# A rule, a change of dvc.yaml, and the fault that must be found.
CHANGED = [
    (
        dependency_faults,
        "      - ${paths.code}/train.json\n",
        "",
        r"dvc.yaml:\d+: train lacks \$\{paths.code\}/train.json",
    ),
    (dependency_faults, "      - serving\n", "", r"code lacks serving"),
    (dependency_faults, "${paths.code}/gate.json", "${paths.code}/fetch.json", r"gate depends on .*/fetch.json"),
    (
        dependency_faults,
        "      - *weights\n",
        "      - stages/train.py\n",
        r"evaluate depends on stages/train.py",
    ),
    (path_faults, "python -m stages.fetch", "python -m stages.ingest", "fetch runs python -m stages.ingest"),
    (path_faults, "      - *quarantine\n    outs", "    outs", "prepare: its main takes quarantine"),
    (path_faults, "      - *expected\n      - *arrays", "      - *arrays", "verify: its main takes expected"),
    (path_faults, "      - *builtin\n", "      - *builtin\n      - *times\n", "fetch: its main does not take times"),
    (path_faults, "    outs:\n      - *builtin", "    outs:\n      - data/more", "fetch: data/more belongs under vars"),
    (path_faults, "      - *builtin\n", "      - data/builtin\n", "data/builtin is written 2 times"),
    (path_faults, "&table data/table.parquet", "&table data/raw/table.parquet", "table lies in data/raw"),
    (path_faults, "&table data/table.parquet", "&table data/arrays/table.parquet", "arrays and table overlap"),
    (
        path_faults,
        "    outs:\n      - *builtin",
        "    outs:\n      - ${data.path}",
        r"\$\{data.path\} depends on params",
    ),
    (
        param_faults,
        "params: [data.builtin]",
        "params: [data.bultin]",
        "fetch lists data.bultin, which params.yaml does not have",
    ),
    (param_faults, "split.val, ", "", "params.yaml:1: no stage lists split.val"),
    (read_key_faults, "split.val, ", "", "reads split.val, which dvc.yaml does not list for prepare"),
    (
        read_key_faults,
        "[export.max_batch, gate.robustness]",
        "[export.max_batch, gate.level, gate.robustness]",
        "verify lists gate.level",
    ),
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
    assert [each for each in rule(tree) if re.search(fault, each)]
