"""Ingestion of small PNGs, relative to a bare multi-process Pillow decode of the same files, and its memory.

Both are complete commands, including the start of Python and of the processes.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import workspace

FILES, FEWER, SIDE, CLASSES, ROUNDS = 60_000, 6_000, 28, 10, 5


def main() -> list[dict[str, Any]]:
    """The ratio of the minimal times, both in turn, and of the peak memory with 60,000 and 6,000 files."""
    with tempfile.TemporaryDirectory() as temporary:
        many, few = (make(Path(temporary) / str(count), count) for count in (FILES, FEWER))
        ours, bare, memory = [], [], []
        for _ in range(ROUNDS):
            bare.append(
                workspace.timed(many, sys.executable, workspace.ROOT / "benchmarks/bare_decode.py", "data/raw/png")
            )
            seconds, peak = ingest(many)
            ours.append(seconds)
            memory.append(peak)
        smaller = statistics.median(ingest(few)[1] for _ in range(ROUNDS))
    ratio, growth = min(ours) / min(bare), statistics.median(memory) / smaller
    return [
        {
            "what": f"ingesting {FILES:,} PNGs of {SIDE}x{SIDE}, "
            "relative to a bare parallel Pillow decode, start-up included",
            "figure": f"{ratio:.2f}",
            "goal": "at most 1.5",
            "with": f"{FILES / min(ours):,.0f} files/s against {FILES / min(bare):,.0f}",
        },
        {
            "what": f"its peak memory at {FILES:,} files, relative to {FEWER:,}",
            "figure": f"{growth:.2f}",
            "goal": "at most 1.2",
            "with": f"{statistics.median(memory):,.0f} MiB, all processes together, against {smaller:,.0f}",
        },
    ]


def make(folder: Path, count: int) -> Path:
    """A project whose raw data are `count` random PNGs in class folders."""
    changes = {"data": {"path": "data/raw/png", "format": "image_folder"}}
    project = workspace.project(folder, changes)
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE), np.uint8)
    for label in range(CLASSES):
        (project / "data" / "raw" / "png" / str(label)).mkdir(parents=True)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(project / "data" / "raw" / "png" / str(i % CLASSES) / f"{i:06d}.png")
    return project


def ingest(project: Path) -> tuple[float, float]:
    """Seconds, and peak MiB of the stage and its workers together."""
    return workspace.watched(project, sys.executable, "-m", "stages.ingest")


if __name__ == "__main__":
    for result in main():
        print(json.dumps(result))
