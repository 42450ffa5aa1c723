"""The recipe of categories."""

from __future__ import annotations

from flows.intake.recipes import Part, Seen


def part(seen: Seen) -> Part:
    """A short vector for each word."""
    return Part({"name": "embedding", "size": 8})
