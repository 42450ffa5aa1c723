"""Arithmetic that gives the same bits on every x86-64 processor with AVX2 and FMA, whoever made it.

torch's libraries choose their code by the processor's maker, instructions and caches. docs/reproducibility.md has what
each variable fixes, what was measured, and the price.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # its AVX2 is for Intel's processors alone
}
NEEDED = frozenset({"avx2", "fma"})


def portable() -> None:
    """Let this process, and those that it starts, compute portably; where the processor cannot, say so and go on.

    Raises:
        RuntimeError: torch has been imported, and may have chosen its code already.
    """
    if not instructions() >= NEEDED:
        print(
            "portable arithmetic needs x86-64 with AVX2 and FMA: what is computed here is this machine's own",
            flush=True,
        )
    elif PORTABLE.items() - os.environ.items():
        if "torch" in sys.modules:
            raise RuntimeError("torch was imported before its arithmetic was chosen")
        os.environ.update(PORTABLE)


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The sets of instructions that Linux finds in this x86-64 processor; none elsewhere."""
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        return set()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
