"""The recipe of texts."""

from __future__ import annotations

from flows.intake.recipes import Part, Seen


def part(seen: Seen) -> Part:
    """Words without their order, as a linear model of texts reads them."""
    train = {"learning_rate": 0.005, "l2": 0.1, "average": 0.99}
    return Part({"name": "bag", "size": 128, "dropout": 0.3}, trunk={"name": "concat", "dropout": 0.3}, train=train)
