"""Yardsticks: what simple models reach on the rows and features of the network, so that its metrics mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CONSTANT, LINEAR, TREES = "constant", "linear", "trees"
NAMES = {CONSTANT: "the constant answer", LINEAR: "a linear model", TREES: "boosted trees"}
_BEST, _NOTES = "best", "notes"


@dataclass(frozen=True)
class Yardsticks:
    """Predictions [N, ...] for the test rows by name, the simplest first, as the network's first output.

    `best`: the name of the one with the lowest loss on the val split. `notes`: what the models did not learn from.
    """

    predictions: Mapping[str, np.ndarray]
    best: str
    notes: Sequence[str] = ()

    def save(self, path: Path) -> None:
        """Write them as arrays; equal yardsticks give equal bytes."""
        content: dict[str, Any] = {_BEST: np.array(self.best), _NOTES: np.array(self.notes, np.str_)}
        with path.open("wb") as file:
            np.savez(file, **content, **self.predictions)  # type: ignore[arg-type]  # as in evaluate


def load(path: Path) -> Yardsticks:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    best, notes = content.pop(_BEST), content.pop(_NOTES)
    return Yardsticks(content, str(best), notes.tolist())
