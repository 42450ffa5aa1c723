"""The recipe of numbers."""

from __future__ import annotations

from flows.intake.recipes import Part, Seen


def part(seen: Seen) -> Part:
    """The number itself beside functions of its quantile: fewer of them where there are few rows or many columns."""
    if seen.columns > 200 or 2 * seen.columns > seen.rows:
        return Part({"name": "linear", "size": 2})
    small = seen.rows < 2000
    return Part({"name": "spline", "size": 4 if small else 12, "bins": 8 if small else 48})
