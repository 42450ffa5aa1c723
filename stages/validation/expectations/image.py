"""What an image column must be: of a usable size, in a mode that converts without loss, not animated, not blank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Modes that convert to gray or RGB without loss. CMYK and LAB lose colors, F and I lose range.
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class Options:
    """Expectations of a column of pictures."""

    min_side: int = 1
    max_side: int = 10_000
    modes: tuple[str, ...] = PLAIN_MODES  # Pillow's names
    max_frames: int = 1  # more is an animation
    min_contrast: float = 0.0  # lower bound, exclusive, of the standard deviation of the gray levels, 0 to 255

    def __post_init__(self) -> None:
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(f"min_side {self.min_side} must be at least 1 and at most max_side {self.max_side}")
        if not self.modes:
            raise ValueError("modes must name at least one mode")
        if self.max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, not {self.max_frames}")
        if not 0 <= self.min_contrast < 128:
            raise ValueError(f"min_contrast must be at least 0 and under 128, not {self.min_contrast}")


def expectations(column: str, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """Great Expectations' names with their arguments, over the facts of a column of pictures."""
    sides = {"min_value": options.min_side, "max_value": options.max_side}
    contrast = {"min_value": options.min_contrast, "strict_min": True}
    return [
        ("expect_column_values_to_not_be_null", {"column": f"{column}.width"}),  # a picture has all facts or none
        ("expect_column_values_to_be_between", {"column": f"{column}.width", **sides}),
        ("expect_column_values_to_be_between", {"column": f"{column}.height", **sides}),
        ("expect_column_values_to_be_in_set", {"column": f"{column}.mode", "value_set": list(options.modes)}),
        ("expect_column_values_to_be_between", {"column": f"{column}.frames", "max_value": options.max_frames}),
        ("expect_column_values_to_be_between", {"column": f"{column}.contrast", **contrast}),
    ]


def infer(column: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Sides from half of the smallest to twice the largest, and those of PLAIN_MODES that occur."""
    sides = [rows[f"{column}.{side}"].dropna() for side in ("width", "height")]
    if not all(map(len, sides)):
        return {}
    found = set(rows[f"{column}.mode"].dropna().unique())
    modes = [mode for mode in PLAIN_MODES if mode in found]
    smallest, largest = int(min(side.min() for side in sides)), int(max(side.max() for side in sides))
    sizes = {"min_side": max(1, smallest // 2), "max_side": 2 * largest}
    return {**sizes, **({"modes": modes} if modes else {})}
