"""Metrics and pictures of the checkpoint's answers, and those answers, which the served ones are held against."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages import trees
from stages.core import arithmetic, command
from stages.evaluation import plots as evaluation_plots
from stages.evaluation import sample_sheet, samples, suspects
from stages.evaluation.metrics import Metrics
from stages.evaluation.metrics import of as of_target
from stages.schema import Schema, kind
from stages.settings import params
from stages.tables.arrays import Split, open_split

BATCH = 256
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
    suspected: Path,
) -> None:
    """Answer the val and test splits with the trained network and describe how well; list samples to look at."""
    said = params.load("evaluate").train
    if said.arithmetic == "portable":
        arithmetic.portable()
    import torch

    from stages.networks import network

    if said.arithmetic == "portable":
        torch.set_num_threads(said.threads)  # sums differ with the number of threads
    fitted = Schema.load(schema)
    net = network.load(weights, fitted)
    measures = of_target(fitted.target)
    splits = {name: open_split(arrays, name) for name in ("val", "test")}
    outputs = {name: answer(net, split) for name, split in splits.items()}
    figures = {name: measure(measures, fitted, outputs[name], split.target) for name, split in splits.items()}
    if is_table(fitted):
        figures["trees"] = measure(measures, fitted, yardstick(fitted, arrays, splits["test"]), splits["test"].target)
    with command.replacing(metrics) as whole:
        whole.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with command.replacing(expected) as whole, whole.open("wb") as file:
        np.savez(file, **outputs["test"])
    found = suspects.find(net, fitted, arrays)
    with command.replacing(suspected) as whole:
        suspects.write(found, fitted, source, whole)
    test, answers = splits["test"], outputs["test"]
    with command.replacing(plots) as folder:
        folder.mkdir()
        for name, figure in evaluation_plots.of(fitted.target).plots(answers, test.target, fitted.target).items():
            sample_sheet.save(figure, folder / f"{name}.png")
        sample_sheet.save(draw_curves(curves), folder / "curves.png")
        sample_sheet.save(mistakes(fitted, source, test, answers), folder / "mistakes.png")
        for name, figure in suspects.sheets(found, fitted, source).items():
            sample_sheet.save(figure, folder / f"{name}.png")
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


def measure(
    measures: Metrics, schema: Schema, outputs: Mapping[str, np.ndarray], target: np.ndarray
) -> dict[str, float]:
    """Every metric as a plain number."""
    import torch

    metrics = measures.metrics(schema.target)
    metrics.update(torch.from_numpy(next(iter(outputs.values()))), torch.from_numpy(target))
    values = measures.scalars(metrics.compute(), schema.target)
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}


def told(figures: Mapping[str, float | None]) -> str:
    """Those of the whole split."""
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if "[" not in name and value is not None)


def is_table(schema: Schema) -> bool:
    """Whether every feature is of a kind whose columns travel together: a number each, which trees can read."""
    return all(kind(column.kind).PACKED for column in schema.features)


def yardstick(schema: Schema, arrays: Path, test: Split) -> dict[str, np.ndarray]:
    """What boosted trees answer to the test split, so that nobody deploys a network that loses to them unknowingly."""
    train = open_split(arrays, "train")
    x, new = (np.concatenate([block.astype(np.float64) for block in split.blocks], axis=1) for split in (train, test))
    whole = np.concatenate([np.full(block.shape[1], block.dtype.kind == "i") for block in train.blocks])
    few = [place for place in np.flatnonzero(whole) if max(x[:, place].max(), new[:, place].max()) < CATEGORIES]
    return trees.of(schema.target).predict(x, train.target, few, new)


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


def mistakes(schema: Schema, source: Path, split: Split, outputs: Mapping[str, np.ndarray]) -> Any:
    """A sheet of the worst answers."""
    worst = samples.of(schema.target).worst(outputs, split.target)[: sample_sheet.MOST]
    answered = sample_sheet.told(schema, {name: value[worst] for name, value in outputs.items()})
    return sample_sheet.draw(schema, source, split.rows[worst], answered, "no mistakes")


if __name__ == "__main__":
    command.run(main)
