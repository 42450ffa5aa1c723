"""The machine on which times are measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def fingerprint() -> dict[str, Any]:
    """The properties that times depend on: a verdict with times from another machine does not hold here."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "system": f"{platform.system()} {platform.machine()}"}
