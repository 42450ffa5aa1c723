"""Dates and times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from stages.schema import Tensor

RAW, PACKED, OPTIONAL, ENCODER = "str", True, True, "linear"

WIDTH = 7  # sine and cosine of the phase in the day, the week and the year; days since 2000
ISO = re.compile(  # not datetime.fromisoformat, which accepts more in later Pythons
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?: ?(Z|[+-]\d\d:?\d\d))?)?"
)
_EPOCH = datetime(1970, 1, 1)
_LEAST, _MOST = 1e8, 253_402_300_800.0  # seconds since 1970; lower numbers may be a year, or a date without dashes


@dataclass(frozen=True)
class Options:
    """A timestamp has no options."""


def raw(value: Any) -> str | None:
    """An ISO date or timestamp, or seconds since 1970 (from 1973 on), as text; None: blank and NaN are missing."""
    if value is None or value != value or not str(value).strip():
        return None
    text = str(value).strip()
    _parsed(text)
    return text


def facts(values: Iterable[str | None]) -> dict[str, np.ndarray]:
    """The year; NaN if missing."""
    years = [math.nan if value is None else float(_parsed(value)[0].year) for value in values]
    return {"year": np.array(years, np.float64)}


def fit(chunks: Iterable[Iterable[str | None]], options: Options) -> dict[str, Any]:
    """Mean and standard deviation of each of the WIDTH numbers; 0 and 1 for sines and cosines, which stay unscaled."""
    known = sorted(_days(value) for chunk in chunks for value in chunk if value)
    if not known:
        raise ValueError("every training value is missing: take the column out of schema.features")
    mean, std = float(np.mean(known)), float(np.std(known))
    unscaled = WIDTH - 1
    return {"mean": [0.0] * unscaled + [_stored(mean)], "std": [1.0] * unscaled + [_stored(std) if std > 0 else 1.0]}


def transform(values: Iterable[str | None], fitted: dict[str, Any]) -> np.ndarray:
    """[N] -> float32 [N, 7]; the phases are of the local time as written. NaN is missing."""
    return np.array([_row(value) for value in values], np.float32).reshape(-1, WIDTH)


def tensor(fitted: dict[str, Any]) -> Tensor:
    """float32 (7,)."""
    return Tensor("float32", (WIDTH,))


def _row(value: str | None) -> list[float]:
    if not value:
        return [math.nan] * WIDTH
    clock, _ = _parsed(value)
    day = (clock.hour * 3600 + clock.minute * 60 + clock.second) / 86_400
    week = (clock.weekday() + day) / 7
    year = (clock.timetuple().tm_yday - 1 + day) / 366
    turns = [part(2 * math.pi * share) for share in (day, week, year) for part in (math.sin, math.cos)]
    return [*(round(turn, 6) for turn in turns), _days(value)]  # the last bits differ between libraries


def _days(value: str) -> float:
    """Days since 2000, in UTC."""
    clock, ahead = _parsed(value)
    return (clock - datetime(2000, 1, 1) - ahead) / timedelta(days=1)


def _parsed(text: str) -> tuple[datetime, timedelta]:
    """The local time as written, to the second, and its offset from UTC, which is 0 without a zone.

    Raises:
        ValueError: the text is neither an ISO timestamp nor a number of seconds.
    """
    if match := ISO.fullmatch(text):
        *parts, zone = match.groups()
        try:
            year, month, day, hour, minute, second = (int(part or 0) for part in parts)
            clock = datetime(year, month, day, hour, minute, second)
        except ValueError as error:
            raise ValueError(f"{text!r} is not a time: {error}") from None
        if zone is None or zone == "Z":
            return clock, timedelta(0)
        ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        return clock, -ahead if zone[0] == "-" else ahead
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _LEAST <= seconds < _MOST:
        hint = f": write {seconds / 1000:.0f}, seconds" if _LEAST <= seconds / 1000 < _MOST else ""
        short = text if len(text) <= 40 else f"{text[:37]}..."
        raise ValueError(f"{short!r} is not an ISO date or timestamp, such as 2024-12-31T23:59{hint}")
    return _EPOCH + timedelta(seconds=math.floor(seconds)), timedelta(0)


def _stored(value: float) -> float:
    return float(f"{value:.9g}")
