"""The recipe of timestamps."""

from __future__ import annotations

from flows.intake.recipes import Part, Seen


def part(seen: Seen) -> Part:
    """Linear functions of the parts of a date and of the time that has passed."""
    return Part({"name": "linear", "size": 8})
