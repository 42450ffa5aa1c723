"""What a column of each kind needs of a network: a module for each kind of feature, found by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from stages.core.lookup import load_module


@dataclass(frozen=True)
class Seen:
    """What is known of the columns of one kind: their rows and number, and facts about a few of their values."""

    rows: int
    columns: int = 1
    facts: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The encoder of a kind, and what else of the recipe it decides.

    Args:
        encoder: options in `model.encoders`; {} for the kind's own.
        augment: options in `train.augment`.
        trunk: the trunk, where the kind decides it.
        train: parameters of training that the kind decides.
        row_cost: seconds that one row of one step takes on one core, beyond those of the trunk.
    """

    encoder: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    trunk: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    row_cost: float = 0.0


class Recipe(Protocol):
    """A module of this package."""

    def part(self, seen: Seen) -> Part:
        """Choose for the columns of this kind."""
        ...


def of(kind: str) -> Recipe:
    """The recipe of a feature kind."""
    return load_module(f"flows.intake.recipes.{kind}", Recipe)
