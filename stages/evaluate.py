"""Metrics and pictures of the checkpoint's answers, and those answers, which the served ones are held against."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages import command, table
from stages.arrays import Split, open_split
from stages.schema import Column, Schema, kind, target_kind

BATCH = 256
MISTAKES = 24  # on the picture sheet
DRAWN = 6  # columns of each
CATEGORIES = 255  # more than the trees take; such codes count as numbers


def main(
    weights: Path,
    curves: Path,
    arrays: Path,
    schema: Path,
    source: Path,
    metrics: Path,
    plots: Path,
    expected: Path,
) -> None:
    """Answer the val and test splits with the trained network and describe how well."""
    from stages.networks import network

    fitted = Schema.load(schema)
    net = network.load(weights, fitted)
    head = network.head_module(fitted.target)
    splits = {name: open_split(arrays, name) for name in ("val", "test")}
    outputs = {name: answer(net, split) for name, split in splits.items()}
    figures = {name: measure(head, fitted, outputs[name], split.target) for name, split in splits.items()}
    if is_table(fitted):
        figures["trees"] = measure(head, fitted, yardstick(head, arrays, splits["test"]), splits["test"].target)
    with command.replacing(metrics) as whole:
        whole.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with command.replacing(expected) as whole, whole.open("wb") as file:
        np.savez(file, **outputs["test"])
    test, answers = splits["test"], outputs["test"]
    with command.replacing(plots) as folder:
        folder.mkdir()
        for name, figure in head.plots(answers, test.target, fitted.target).items():
            save(figure, folder / f"{name}.png")
        save(draw_curves(curves), folder / "curves.png")
        save(mistakes(head, fitted, source, test, answers), folder / "mistakes.png")
    print(f"test: {told(figures['test'])}")
    if "trees" in figures:
        print(f"boosted trees on the same rows: {told(figures['trees'])}")


def answer(network: Any, split: Split) -> dict[str, np.ndarray]:
    """Every output of the network for a whole split, [N, *shape]."""
    import torch

    parts = []
    with torch.inference_mode():
        for first in range(0, len(split), BATCH):
            blocks = [torch.from_numpy(block[first : first + BATCH].copy()) for block in split.blocks]
            parts.append({name: value.numpy() for name, value in network.answer(network(blocks)).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measure(head: Any, schema: Schema, outputs: Mapping[str, np.ndarray], target: np.ndarray) -> dict[str, float]:
    """Every metric as a plain number."""
    import torch

    metrics = head.metrics(schema.target)
    metrics.update(torch.from_numpy(next(iter(outputs.values()))), torch.from_numpy(target))
    values = head.scalars(metrics.compute(), schema.target)
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}


def told(figures: Mapping[str, float | None]) -> str:
    """Those of the whole split."""
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if "[" not in name and value is not None)


def is_table(schema: Schema) -> bool:
    """Whether every feature is of a kind whose columns travel together: a number each, which trees can read."""
    return all(kind(column.kind).PACKED for column in schema.features)


def yardstick(head: Any, arrays: Path, test: Split) -> dict[str, np.ndarray]:
    """What boosted trees answer to the test split, so that nobody deploys a network that loses to them unknowingly."""
    train = open_split(arrays, "train")
    x, new = (np.concatenate([block.astype(np.float64) for block in split.blocks], axis=1) for split in (train, test))
    whole = np.concatenate([np.full(block.shape[1], block.dtype.kind == "i") for block in train.blocks])
    few = [place for place in np.flatnonzero(whole) if max(x[:, place].max(), new[:, place].max()) < CATEGORIES]
    answers: dict[str, np.ndarray] = head.trees(x, train.target, few, new)
    return answers


def draw_curves(path: Path) -> Any:
    """Losses and the first metric of the val split, by epoch."""
    from matplotlib.figure import Figure

    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = shown.subplots(1, 2)
    headline = next(name for name in rows[0] if name.startswith("val_") and name != "val_loss")
    for axes, names in ((left, ("train_loss", "val_loss")), (right, (headline,))):
        for name in names:
            axes.plot([int(row["epoch"]) for row in rows], [float(row[name]) for row in rows], label=name)
        axes.set_xlabel("epoch")
        axes.legend()
    left.set_yscale("log")
    return shown


def mistakes(head: Any, schema: Schema, source: Path, split: Split, outputs: Mapping[str, np.ndarray]) -> Any:
    """A sheet of the worst answers, each sample drawn by its kind."""
    from matplotlib.figure import Figure

    worst = head.worst(outputs, split.target)[:MISTAKES]
    order = np.sort(worst)
    values = {column.name: cells(source, column.name, split.rows[order]) for column in schema.features[:DRAWN]}
    truth = cells(source, schema.target.name, split.rows[order])
    answers = target_kind(schema.target.kind).answers(
        {name: value[order] for name, value in outputs.items()}, schema.target.fitted
    )
    columns = 6
    sheet = Figure(figsize=(9, 1.9 * max(1, -(-len(worst) // columns))), layout="constrained")
    if not len(worst):
        sheet.text(0.5, 0.5, "no mistakes", ha="center")
        return sheet
    axes = sheet.subplots(-(-len(worst) // columns), columns, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, position in zip(axes, worst, strict=False):
        i = int(np.searchsorted(order, position))
        draw(schema.features[:DRAWN], {name: column[i] for name, column in values.items()}, place)
        said = ", ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in answers[i].values())
        place.set_title(f"{said}\ntruly {truth[i]}", fontsize=8)
    return sheet


def draw(columns: Sequence[Column], values: Mapping[str, Any], axes: Any) -> None:
    """One sample: its columns one below the other, each drawn by its kind and with its name if there are several."""
    for i, column in enumerate(columns):
        place = axes
        if len(columns) > 1:
            place = axes.inset_axes((0.5, 1 - (i + 1) / len(columns), 0.5, 1 / len(columns)))
            place.set_axis_off()
            axes.text(0.45, 1 - (i + 0.5) / len(columns), column.name[:16], ha="right", va="center", fontsize=5)
        kind(column.kind).draw(values[column.name], place)


def cells(source: Path, name: str, rows: np.ndarray) -> list[Any]:
    """The values of one column at a few rows."""
    return [value for chunk in table.Values(source, name, rows) for value in chunk]


def save(figure: Any, path: Path) -> None:
    """As PNG without the library's name in it, so that its bytes depend on what it shows alone."""
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    command.run(main)
