"""The recipe for a new data set: network and training, by the number of rows and columns and their kinds.

docs/recipes.md says how the rules were fitted, and on what they were judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.intake import recipes
from flows.intake.recipes import Part, Seen

MINUTE = 60.0
TRAIN_SHARE = 0.7  # of the rows, when the data have no splits of their own
MOST_S = 2 * MINUTE  # that a training may take on one core
STEPS = 2000  # of a table
EPOCHS = (10, 300)  # at least and at most
ROW_S = 4e-8  # that a row takes for each weight of a member


@dataclass(frozen=True)
class Facts:
    """What a recipe depends on.

    Args:
        rows: in the whole data set.
        seen: facts about the features, by kind.
    """

    rows: int
    seen: Mapping[str, Seen]


@dataclass(frozen=True)
class Chosen:
    """Sections of params.yaml {section: {key: value}}, and the reasons of some."""

    sections: dict[str, dict[str, Any]]
    reasons: dict[str, dict[str, str]]


def choose(facts: Facts) -> Chosen:
    """Choose network and training for a data set."""
    rows = max(1, round(TRAIN_SHARE * facts.rows))
    parts = {kind: recipes.of(kind).part(seen) for kind, seen in facts.seen.items()}
    train = table_training(rows) | combine(part.train for part in parts.values())
    trunk = combine(part.trunk for part in parts.values()) or table_trunk(rows)
    steps_per_epoch = max(1, rows // min(rows, train["batch_size"]))
    most = max(1, round(MOST_S / (rows * row_cost(facts, parts))))
    epochs = min(max(EPOCHS[0], round(STEPS / steps_per_epoch)), EPOCHS[1], most)
    patience = max(5, math.ceil(epochs / 3))
    encoders = {kind: part.encoder for kind, part in parts.items() if part.encoder}
    augment = {kind: part.augment for kind, part in parts.items() if part.augment}
    train |= {"epochs": epochs, "warmup_epochs": round(epochs / 10, 1), "patience": patience, "augment": augment}
    size = f"{facts.rows:,} rows"
    return Chosen(
        {"model": {"encoders": encoders, "trunk": trunk, "head": {}}, "train": train},
        {
            "model": {"trunk": f"for {size} of {', '.join(facts.seen)}"},
            "train": {
                "epochs": f"{size}, so at most {epochs * steps_per_epoch:,} steps",
                "batch_size": f"{size}, so {steps_per_epoch:,} steps an epoch",
                "learning_rate": f"for {trunk['name']}",
                "warmup_epochs": "a tenth of the epochs",
                "patience": "a third of the epochs",
            },
        },
    )


def table_training(rows: int) -> dict[str, Any]:
    """Parameters of training for a table with so many training rows."""
    batch_size = 2 ** min(8, max(4, int(math.log2(max(1, rows / 12)))))
    return {"batch_size": batch_size, "learning_rate": 0.003, "l2": 0.1, "average": 0.99}


def table_trunk(rows: int) -> dict[str, Any]:
    """Perceptrons that share their weights, beside a linear model: wider for more rows."""
    if rows < 2000:
        return {"name": "ensemble", "width": 64, "members": 8, "dropout": 0.4}
    return {"name": "ensemble", "width": 128, "members": 8, "dropout": 0.1}


def row_cost(facts: Facts, parts: Mapping[str, Part]) -> float:
    """Seconds that a row takes in a step."""
    columns = sum(seen.columns for seen in facts.seen.values())
    return 1e-5 + 8e-7 * columns + sum(part.row_cost * facts.seen[kind].columns for kind, part in parts.items())


def combine(choices: Any) -> dict[str, Any]:
    """The first choice that is not empty."""
    return next(filter(None, choices), {})
