"""The baseline of ingestion: open and load every PNG of a folder, with a process for each core."""

import multiprocessing
import os
import sys
from pathlib import Path

from PIL import Image


def main(folder: str) -> None:
    """Decode all images and discard them."""
    paths = sorted(str(path) for path in Path(folder).rglob("*.png"))
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for _ in pool.imap_unordered(load, paths, chunksize=256):
            pass


def load(path: str) -> None:
    """Decode one image."""
    with Image.open(path) as picture:
        picture.load()


if __name__ == "__main__":
    main(sys.argv[1])
