"""Numbers: amounts, counts, measurements."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "float64", True, True, "piecewise"

LARGEST = float(np.finfo(np.float32).max)
KNOTS = 64  # quantiles of the training values that are kept, for piecewise encoders


@dataclass(frozen=True)
class Options:
    """Options of a column of numbers in params.yaml."""

    scale: Literal["standard", "quantile"] = "standard"  # quantile: by the rank among the training values
    missing: str | float = "learned"  # what replaces a missing value: "learned", "mean", "median" or a number

    def __post_init__(self) -> None:
        words = ("learned", "mean", "median")
        if self.missing not in words and (isinstance(self.missing, str) or not abs(self.missing) <= LARGEST):
            raise ValueError(f"missing must be {', '.join(words)} or a finite number, not {self.missing!r}")


def raw(value: Any) -> float | None:
    """A number from a number or text, or None: blank and NaN are missing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{value} is not a number: write {int(value)}, or declare the column a category")
    try:
        number = float(value)
    except OverflowError:  # an int that is too large
        number = math.inf
    except (TypeError, ValueError):
        bare = without_marks(value)
        hint = f": write {bare}" if is_finite(bare) else ""
        raise ValueError(f"{_short(value)} is not a number{hint}") from None
    if math.isinf(number) or abs(number) > LARGEST:
        raise ValueError(f"{_short(value)} is not a finite 32-bit number")
    return None if math.isnan(number) else number


def raws(values: np.ndarray) -> np.ndarray:
    """`raw` of float64 [N] -> float64 [N]; NaN is missing."""
    if (np.abs(values) > LARGEST).any():
        raise ValueError("a number is not finite in 32 bits")
    return np.where(np.isnan(values), np.nan, values)  # NaN has several bit patterns: make them one


def facts(values: Iterable[float | None]) -> dict[str, np.ndarray]:
    """No facts: the number itself is in the table."""
    return {}


def fit(chunks: Iterable[Sequence[float | None]], options: Options) -> dict[str, Any]:
    """Mean and standard deviation of the values that are not missing, and `knots`, their distinct quantiles.

    With `scale: quantile` also `scores`, the normal deviate of each knot; with `missing` also `fill`, the replacement.
    """
    parts = [np.asarray(chunk, np.float64) for chunk in chunks]  # None becomes NaN
    known = np.concatenate(parts) if parts else np.empty(0)
    known = np.sort(known[~np.isnan(known)])  # sorted, so that the order of the rows cannot matter
    if not len(known):
        raise ValueError("every training value is missing: take the column out of schema.features")
    mean, std = float(known.mean()), float(known.std())
    quantiles = np.quantile(known, np.linspace(0, 1, KNOTS + 1)).astype(np.float32)
    knots = np.unique(quantiles)
    fitted: dict[str, Any] = {
        "mean": _stored(mean),
        "std": _stored(std) if std > 0 else 1.0,  # a constant column is left as it is
        "knots": [float(knot) for knot in knots],
    }
    if options.scale == "quantile":
        fitted["scores"] = _scores(quantiles, knots)
    if options.missing != "learned":
        named = {"mean": mean, "median": float(np.median(known))}
        fitted["fill"] = _stored(float(named.get(str(options.missing), options.missing)))
    return fitted


def transform(values: Sequence[float | None], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> float32 [N, 1]; NaN is missing."""
    column = np.asarray(values, np.float64)  # None becomes NaN
    if (np.abs(column) > LARGEST).any():
        raise ValueError("a number is not finite in 32 bits")
    return column.astype(np.float32)[:, None]


def tensor(fitted: dict[str, Any]) -> Tensor:
    """float32 (1,)."""
    return Tensor("float32", (1,))


def _scores(quantiles: np.ndarray, knots: np.ndarray) -> list[float]:
    """The normal deviate of each knot [K], at the middle rank of the quantiles [Q] that equal it."""
    first, behind = (np.searchsorted(quantiles, knots, side) for side in ("left", "right"))
    least = 0.5 / len(quantiles)  # the ends would be infinite
    ranks = np.clip((first + behind - 1) / 2 / (len(quantiles) - 1), least, 1 - least)
    return [_stored(NormalDist().inv_cdf(float(rank))) for rank in ranks]


def _stored(value: float) -> float:
    return float(f"{value:.9g}")


def without_marks(value: Any) -> str:
    """A number without marks between thousands, and with a point for a decimal comma."""
    return re.sub(r"(?<=\d)[, ](?=\d{3})", "", str(value)).replace(",", ".")


def is_finite(text: str) -> bool:
    """Whether the text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
