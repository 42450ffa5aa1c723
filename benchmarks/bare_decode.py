"""What ingestion is held against: every PNG of a folder opened and loaded, by as many processes as there are cores."""

import multiprocessing
import os
import sys
from pathlib import Path

from PIL import Image


def main(folder: str) -> None:
    """Decode all, and keep nothing."""
    paths = sorted(str(path) for path in Path(folder).rglob("*.png"))
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for _ in pool.imap_unordered(load, paths, chunksize=256):
            pass


def load(path: str) -> None:
    """One of them."""
    with Image.open(path) as picture:
        picture.load()


if __name__ == "__main__":
    main(sys.argv[1])
