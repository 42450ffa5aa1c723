"""Metrics and plots of the checkpoint's predictions; the predictions are kept to compare the served answers with."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import arithmetic, command
from stages.core.files import replacing
from stages.evaluation import plots as evaluation_plots
from stages.evaluation import sample_sheet, samples
from stages.evaluation import suspects as suspect_samples
from stages.evaluation.metrics import Metrics
from stages.evaluation.metrics import of as metrics_of
from stages.evaluation.yardsticks import NAMES, fitting
from stages.schema import Schema
from stages.settings import params, section, sections
from stages.tables.arrays import Split, open_split

BATCH = 256


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    train: sections.Train


def main(
    weights: Path,
    arrays: Path,
    schema: Path,
    table: Path,
    metrics: Path,
    plots: Path,
    expected: Path,
    suspects: Path,
    yardsticks: Path,
) -> None:
    """Predict the val and test splits with the network, measure and plot the result beside simple models' results."""
    train = params.load("evaluate", Parameters).train
    if train.arithmetic == "portable":
        arithmetic.portable()
    import torch

    from stages.networks import network

    if train.arithmetic == "portable":
        torch.set_num_threads(train.threads)  # sums differ with the number of threads
    fitted = Schema.load(schema)
    net = network.load(weights, fitted)
    definitions = metrics_of(fitted.target)
    splits = {name: open_split(arrays, name) for name in ("val", "test")}
    outputs = {name: predict(net, split) for name, split in splits.items()}
    figures = {name: measure(definitions, fitted, outputs[name], split.target) for name, split in splits.items()}
    simple = fitting.fit(fitted, arrays)
    for name, predicted in simple.predictions.items():
        figures[name] = measure(definitions, fitted, {name: predicted}, splits["test"].target)
    with replacing(yardsticks) as path:
        simple.save(path)
    with replacing(metrics) as path:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with replacing(expected) as path, path.open("wb") as file:
        np.savez(file, **outputs["test"])  # type: ignore[arg-type]  # numpy takes a name `allow_pickle` for its own
    found = suspect_samples.find(net, fitted, arrays)
    with replacing(suspects) as path:
        suspect_samples.write(found, fitted, table, path)
    test, predictions = splits["test"], outputs["test"]
    with replacing(plots) as folder:
        folder.mkdir()
        for name, figure in evaluation_plots.of(fitted.target).plots(predictions, test.target, fitted.target).items():
            sample_sheet.save(figure, folder / f"{name}.png")
        sample_sheet.save(mistakes(fitted, table, test, predictions), folder / "mistakes.png")
        for name, figure in suspect_samples.sheets(found, fitted, table).items():
            sample_sheet.save(figure, folder / f"{name}.png")
    print(f"test: {format_metrics(figures['test'])}")
    for name in simple.predictions:
        print(f"{NAMES[name]} on the same rows: {format_metrics(figures[name])}")


def predict(network: Any, split: Split) -> dict[str, np.ndarray]:
    """Every output [N, *shape] of the network for a split."""
    import torch

    parts = []
    with torch.inference_mode():
        for first in range(0, len(split), BATCH):
            blocks = [torch.from_numpy(block[first : first + BATCH].copy()) for block in split.blocks]
            parts.append({name: value.numpy() for name, value in network.predict(network(blocks)).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measure(
    definitions: Metrics, schema: Schema, outputs: Mapping[str, np.ndarray], target: np.ndarray
) -> dict[str, float | None]:
    """Every metric as a plain number; None if it is not finite."""
    import torch

    metrics = definitions.metrics(schema.target)
    metrics.update(torch.from_numpy(next(iter(outputs.values()))), torch.from_numpy(target))
    values = definitions.scalars(metrics.compute(), schema.target)
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}


def format_metrics(figures: Mapping[str, float | None]) -> str:
    """The metrics of a whole split as a line of text; those of single classes are left out."""
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if "[" not in name and value is not None)


def mistakes(schema: Schema, source: Path, split: Split, outputs: Mapping[str, np.ndarray]) -> Any:
    """A sheet of the worst predictions."""
    worst = samples.of(schema.target).worst(outputs, split.target)[: sample_sheet.MOST]
    lines = sample_sheet.prediction_lines(schema, {name: value[worst] for name, value in outputs.items()})
    return sample_sheet.draw(schema, source, split.rows[worst], lines, "no mistakes")


if __name__ == "__main__":
    command.run(main)
