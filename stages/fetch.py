"""Write the built-in data set, so that a fresh clone runs without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from stages import command, params


def main(folder: Path) -> None:
    """Write `data.builtin` below FOLDER."""
    name = params.load("fetch").data.builtin
    with command.replacing(folder) as partial:
        BUILTIN[name](partial / name)


def digits(folder: Path) -> None:
    """scikit-learn's 1,797 digits of 8x8 pixels, as LABEL/INDEX.png."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # 64 values of 0 to 16 each
    grey_NxHxW = np.rint(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    for label in set(labels):
        (folder / str(label)).mkdir(parents=True)
    for index, (grey, label) in enumerate(zip(grey_NxHxW, labels, strict=True)):
        Image.fromarray(grey).save(folder / str(label) / f"{index:04d}.png")


BUILTIN = {"digits": digits}

if __name__ == "__main__":
    command.run(main)
