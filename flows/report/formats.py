"""Formats numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

UNITS = ("bytes", "kB", "MB", "GB")


def number(value: float | None, signed: bool = False) -> str:
    """Format with four significant digits, or all digits before the point."""
    if value is None:
        return ""
    text = f"{abs(value):,.0f}" if abs(value) >= 10_000 else f"{abs(value):.4g}"
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def interval_ends(ends: Sequence[float | None], signed: bool) -> str:
    """Format an interval, which may be open."""
    low, high = (number(end, signed) for end in ends)
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""


def total_size(files: Iterable[Path]) -> str:
    """Format the size of some files together."""
    size = sum(path.stat().st_size for path in files)
    power = next(power for power in range(4) if size < 1000 ** (power + 1) or power == 3)
    value = size / 1000**power
    return f"{value:.0f} {UNITS[power]}" if value >= 100 else f"{value:.3g} {UNITS[power]}"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Format a number of things."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
