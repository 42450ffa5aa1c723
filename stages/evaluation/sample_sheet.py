"""Samples as pictures: each drawn by its kinds, under what was answered and what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from stages.schema import Column, Schema, target_kind, views
from stages.tables import table

MOST = 24  # samples of a sheet
ACROSS = 6
LETTERS = 18  # of a text beside others
DRAWN = 6  # columns of each
FITS = 180.0  # characters in a line times their size in points


def told(schema: Schema, outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Outputs [n, *shape] -> each row's answer in a line."""
    answers = target_kind(schema.target.kind).predictions(outputs, schema.target.fitted)
    return [", ".join(_plain(x) for x in each.values()) for each in answers]


def draw(
    schema: Schema, source: Path, rows: np.ndarray, answered: Sequence[str], otherwise: str, label: str = "truly"
) -> Any:
    """The samples at `rows` [n] of the table, in that order, each under its answer; `otherwise`: what none says.

    `label`: the word before what the table has as the target.
    """
    from matplotlib.figure import Figure

    order = np.sort(rows)
    values = {column.name: cells(source, column.name, order) for column in schema.features[:DRAWN]}
    values[schema.target.name] = cells(source, schema.target.name, order)
    places = np.searchsorted(order, rows)
    titles = [
        f"{said}\n{label} {_plain(values[schema.target.name][i])}" for said, i in zip(answered, places, strict=True)
    ]
    lines = max((title.count("\n") for title in titles), default=1)
    longest = max((len(line) for title in titles for line in title.splitlines()), default=1)
    drawn = Figure(figsize=(9, (1.7 + 0.2 * lines) * max(1, -(-len(rows) // ACROSS))), layout="constrained")
    if not len(rows):
        drawn.text(0.5, 0.5, otherwise, ha="center")
        return drawn
    axes = drawn.subplots(-(-len(rows) // ACROSS), ACROSS, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, i, title in zip(axes, places, titles, strict=False):
        sample(schema.features[:DRAWN], {name: column[i] for name, column in values.items()}, place)
        place.set_title(title, fontsize=min(8, FITS / longest), parse_math=False)
    return drawn


def _plain(value: Any) -> str:
    """As people write it."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def sample(columns: Sequence[Column], values: Mapping[str, Any], axes: Any) -> None:
    """One sample: its columns one below the other, each drawn by its kind and with its name if there are several."""
    for i, column in enumerate(columns):
        place = axes
        if len(columns) > 1:
            place = axes.inset_axes((0.5, 1 - (i + 1) / len(columns), 0.5, 1 / len(columns)))
            place.set_axis_off()
            middle = 1 - (i + 0.5) / len(columns)
            axes.text(0.45, middle, column.name[:16], ha="right", va="center", fontsize=5, parse_math=False)
        views.of(column.kind).draw(values[column.name], place)
        if len(columns) > 1:
            for text in place.texts:  # beside the column's name
                text.set(x=0.0, horizontalalignment="left", text=shorten(text.get_text(), LETTERS, placeholder="…"))


def cells(source: Path, name: str, rows: np.ndarray) -> list[Any]:
    """The values of one column at a few ascending rows."""
    return [value for chunk in table.Values(source, name, rows) for value in chunk]


def save(figure: Any, path: Path) -> None:
    """As PNG without the library's name in it, so that its bytes depend on what it shows alone."""
    figure.savefig(path, metadata={"Software": None})
