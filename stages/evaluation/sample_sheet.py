"""Sheets of samples: each is drawn by its kinds, under its prediction and its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from stages.schema import Column, Schema, target_kind, views
from stages.tables import table

MOST = 24  # samples on a sheet
ACROSS = 6  # samples in a row
LETTERS = 18  # of a text, if a sample has several columns
DRAWN = 6  # columns of a sample
FITS = 180.0  # characters in a line times their size in points


def prediction_lines(schema: Schema, outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Outputs [n, *shape] -> a line of text for each row."""
    answers = target_kind(schema.target.kind).predictions(outputs, schema.target.fitted)
    return [", ".join(_plain(value) for value in answer.values()) for answer in answers]


def draw(schema: Schema, source: Path, rows: np.ndarray, lines: Sequence[str], empty: str, label: str = "truly") -> Any:
    """Draw the samples at `rows` [n] of the table, in that order, each under its text of `lines`.

    `empty`: the text of a sheet without samples. `label`: the word before the target's value in the table.
    """
    from matplotlib.figure import Figure

    order = np.sort(rows)
    values = {column.name: cells(source, column.name, order) for column in schema.features[:DRAWN]}
    values[schema.target.name] = cells(source, schema.target.name, order)
    places = np.searchsorted(order, rows)
    titles = [f"{line}\n{label} {_plain(values[schema.target.name][i])}" for line, i in zip(lines, places, strict=True)]
    height = max((title.count("\n") for title in titles), default=1)
    longest = max((len(line) for title in titles for line in title.splitlines()), default=1)
    drawn = Figure(figsize=(9, (1.7 + 0.2 * height) * max(1, -(-len(rows) // ACROSS))), layout="constrained")
    if not len(rows):
        drawn.text(0.5, 0.5, empty, ha="center")
        return drawn
    axes = drawn.subplots(-(-len(rows) // ACROSS), ACROSS, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, i, title in zip(axes, places, titles, strict=False):
        sample(schema.features[:DRAWN], {name: column[i] for name, column in values.items()}, place)
        place.set_title(title, fontsize=min(8, FITS / longest), parse_math=False)
    return drawn


def _plain(value: Any) -> str:
    """A value as text; numbers with few digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def sample(columns: Sequence[Column], values: Mapping[str, Any], axes: Any) -> None:
    """Draw one sample: its columns one below the other, each by its kind, with names if there are several."""
    for i, column in enumerate(columns):
        place = axes
        if len(columns) > 1:
            place = axes.inset_axes((0.5, 1 - (i + 1) / len(columns), 0.5, 1 / len(columns)))
            place.set_axis_off()
            middle = 1 - (i + 0.5) / len(columns)
            axes.text(0.45, middle, column.name[:16], ha="right", va="center", fontsize=5, parse_math=False)
        views.of(column.kind).draw(values[column.name], place)
        if len(columns) > 1:
            for text in place.texts:  # next to the column's name
                text.set(x=0.0, horizontalalignment="left", text=shorten(text.get_text(), LETTERS, placeholder="…"))


def cells(source: Path, name: str, rows: np.ndarray) -> list[Any]:
    """The values of one column at ascending rows."""
    return [value for chunk in table.Values(source, name, rows) for value in chunk]


def save(figure: Any, path: Path) -> None:
    """Write a PNG without the library's name in it, so that its bytes depend on the picture alone."""
    figure.savefig(path, metadata={"Software": None})
