"""Portable arithmetic: the same weights on every x86-64 processor with AVX2 and FMA."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from stages.core import arithmetic
from tests.support.project import ROOT

# The digest on every processor with AVX2, as docs/reproducibility.md promises.
PINNED = {
    "cnn": "adeebfbfe81a25c6",
    "mlp": "900ec3fb2d79d819",
    "residual": "720fc9801c5ee5e2",
    "gru": "61133606574835b7",
    "transformer": "0f336df51d8b57f1",
}
BARE = {name: value for name, value in os.environ.items() if name not in arithmetic.PORTABLE}


def python(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in an environment with only the given variables of PORTABLE."""
    surroundings = BARE | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, *command], env=surroundings, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.skipif(not arithmetic.instructions() >= arithmetic.NEEDED, reason="this processor lacks AVX2 or FMA")
def test_a_few_training_steps_give_the_same_weights_on_every_processor() -> None:
    done = python(str(ROOT / "tests/support/few_steps.py"), MKL_CBWR="AUTO", ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == PINNED


def test_choosing_arithmetic_after_importing_torch_is_an_error() -> None:
    done = python("-c", "import torch; from stages.core import arithmetic; arithmetic.portable()")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: ")


def test_a_processor_without_avx2_warns_and_computes_natively(monkeypatch, capsys) -> None:
    for name in arithmetic.PORTABLE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(arithmetic, "instructions", lambda: {"avx", "fma"})
    arithmetic.portable()
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not arithmetic.PORTABLE.keys() & os.environ.keys()


@pytest.mark.parametrize(
    ("machine", "text", "found"),
    [
        ("x86_64", "processor\t: 0\nflags\t\t: fpu fma avx2\nbugs\t: x\n\nflags\t\t: fpu\n", {"fpu", "fma", "avx2"}),
        ("x86_64", "", set()),
        ("aarch64", "flags\t\t: fma avx2\n", set()),
    ],
)
def test_instruction_sets_are_read_from_cpuinfo(monkeypatch, tmp_path, machine, text, found) -> None:
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: machine)
    (tmp_path / "cpuinfo").write_text(text)
    assert arithmetic.instructions(tmp_path / "cpuinfo") >= found
    assert bool(arithmetic.instructions(tmp_path / "cpuinfo")) == bool(found)
    assert arithmetic.instructions(tmp_path / "missing") == set()


@pytest.mark.slow
def test_training_a_narrow_cnn_needs_little_memory() -> None:
    """Regression: oneDNN's AVX2 code damaged the heap, and glibc ended the process."""
    code = """
from tests.support import few_steps
from stages.core import arithmetic
arithmetic.portable()
model = {"encoders": {"image": {"name": "cnn", "width": 4}}}
few_steps.STEPS = 40
few_steps.weights(few_steps.PICTURE, ("y", "target_class", {}, few_steps.CLASS), model)
"""
    done = python("-c", code, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
