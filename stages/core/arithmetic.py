"""Arithmetic that gives the same bits on every x86-64 processor with AVX2 and FMA, from any manufacturer.

torch's libraries choose their code by the processor's manufacturer, instructions and caches. docs/reproducibility.md
describes what each variable fixes, what was measured, and the price.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # its AVX2 code runs on Intel's processors only
}
NEEDED = frozenset({"avx2", "fma"})


def portable() -> None:
    """Make this process and its children compute portably; print a warning if the processor cannot.

    Raises:
        RuntimeError: torch is already imported, and may have chosen its code.
    """
    if not instructions() >= NEEDED:
        print(
            "portable arithmetic needs x86-64 with AVX2 and FMA: results computed here may differ on other machines",
            flush=True,
        )
    elif PORTABLE.items() - os.environ.items():
        if "torch" in sys.modules:
            raise RuntimeError("torch was imported before its arithmetic was chosen")
        os.environ.update(PORTABLE)


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The instruction sets that Linux reports for this x86-64 processor; empty on other systems."""
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        return set()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
