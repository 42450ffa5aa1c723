"""Write the built-in data set, so that a fresh clone runs without network access."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.core import command
from stages.core.files import replacing
from stages.settings import params, section, sections


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    data: sections.Data


def main(builtin: Path) -> None:
    """Write `data.builtin` below BUILTIN."""
    name = params.load("fetch", Parameters).data.builtin
    with replacing(builtin) as partial:
        BUILTIN[name](partial / name)


def digits(folder: Path) -> None:
    """scikit-learn's 1,797 digits of 8x8 pixels, as LABEL/INDEX.png."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # 64 values of 0 to 16 each
    gray_NxHxW = np.rint(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    for label in set(labels):
        (folder / str(label)).mkdir(parents=True)
    for index, (gray, label) in enumerate(zip(gray_NxHxW, labels, strict=True)):
        Image.fromarray(gray).save(folder / str(label) / f"{index:04d}.png")


def breast_cancer(folder: Path) -> None:
    """scikit-learn's 569 tumors with 30 measurements each, as a table with the classes malignant and benign."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    _table(folder, bunch, "diagnosis", [str(bunch.target_names[code]) for code in bunch.target])


def diabetes(folder: Path) -> None:
    """scikit-learn's 442 patients, with 10 measurements each and the progression of the disease after a year."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    _table(folder, bunch, "progression", bunch.target.tolist())


def _table(folder: Path, bunch: Any, target: str, values: list[Any]) -> None:
    folder.mkdir(parents=True)
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*(name.replace(" ", "_") for name in bunch.feature_names), target])
        rows.writerows([*row, value] for row, value in zip(bunch.data.tolist(), values, strict=True))


BUILTIN = {"digits": digits, "breast-cancer": breast_cancer, "diabetes": diabetes}

if __name__ == "__main__":
    command.run(main)
