"""Suspects of all splits: samples whose label their nearest neighbors do not share, and outliers.

Each sample is predicted from its k nearest neighbors, weighted by nearness (Bahri, Jiang and Gupta, "Deep k-NN for
noisy labels", ICML 2020), so its own label has no part in the prediction. Its distance to them marks an outlier
(Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining outliers from large data sets", SIGMOD 2000). Both are
means over two spaces: the arrays, which do not depend on labels, and the network's features, which hold what matters.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages.evaluation import sample_sheet, samples
from stages.schema import Schema
from stages.tables.arrays import SPLITS, Split, open_split

MOST = 5_000  # samples that are searched, evenly spread over the splits
NEIGHBORS = 10
TOUCHING = 1e-6  # smaller distances count as this
VALUES = 1_024  # of a sample's arrays that are compared, evenly spread
BATCH = 256
LISTED = 100  # doubtful labels, and as many outliers
DRAWN = 18, 6  # doubtful labels and outliers on a sheet


@dataclass(frozen=True)
class Suspects:
    """The searched samples: `rows` of the table [N], their `split`, predictions from their neighbors, and scores [N].

    `doubts`: how unlikely the label is (`samples.doubts`). `distances`: to the neighbors, as multiples of the median.
    """

    rows: np.ndarray
    split: np.ndarray
    predictions: Mapping[str, np.ndarray]
    doubts: np.ndarray
    distances: np.ndarray

    def worst(self, scores: np.ndarray, most: int) -> np.ndarray:
        """The positions of the highest scores, the highest first."""
        return np.argsort(-scores, kind="stable")[:most]


def find(network: Any, schema: Schema, arrays: Path) -> Suspects:
    """Search samples of all splits."""
    splits = [open_split(arrays, name) for name in SPLITS]
    counts = [len(split) for split in splits]
    chosen = np.unique(np.linspace(0, sum(counts) - 1, min(MOST, sum(counts))).astype(np.int64))
    starts = np.cumsum(counts)[:-1]
    positions = np.split(chosen, np.searchsorted(chosen, starts))
    parts = [_take(split, at - start) for split, at, start in zip(splits, positions, [0, *starts], strict=True)]
    y, rows = (np.concatenate([getattr(part, name) for part in parts]) for name in ("target", "rows"))
    names = np.repeat(SPLITS, [len(part) for part in parts])
    spaces = [np.concatenate([space(part) for part in parts]) for space in (_stored, partial(_features, network))]
    predictions, distances = zip(*(_predict_from_neighbors(space, y, schema) for space in spaces), strict=True)
    mean = {name: np.mean([each[name] for each in predictions], axis=0) for name in predictions[0]}
    doubts = samples.of(schema.target).doubts(mean, y, schema.target)
    return Suspects(rows, names, mean, doubts.round(4), np.mean(distances, axis=0).round(4))


def nearest(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples [N, F], NaN where missing -> the positions of the k nearest others, and their distances, [N, k]."""
    import torch

    values = samples.astype(np.float32)
    present = np.isfinite(values)
    counts = np.maximum(present.sum(0), 1)
    centered = np.where(present, values - np.where(present, values, 0).sum(0) / counts, 0)
    std = np.sqrt((centered**2).sum(0) / counts)
    scaled = (centered / np.where(std > TOUCHING, std, 1)).astype(np.float32)
    x, parts = torch.from_numpy(scaled), []
    for first in range(0, len(x), BATCH):
        distances = torch.cdist(x[first : first + BATCH], x)
        row = torch.arange(len(distances))
        distances[row, first + row] = torch.inf  # a sample is no neighbor of itself
        parts.append(distances.topk(min(NEIGHBORS, len(x) - 1), largest=False))
    return torch.cat([part.indices for part in parts]).numpy(), torch.cat([part.values for part in parts]).numpy()


def write(suspects: Suspects, schema: Schema, source: Path, path: Path) -> None:
    """Write a CSV line for each of the most doubtful labels, then of the farthest outliers. `row`: in the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["suspect", "score", "row", "split", "source", "label", "neighbours"])
        for suspect, scores in (("label", suspects.doubts), ("outlier", suspects.distances)):
            worst = suspects.worst(scores, LISTED)
            order = np.sort(suspects.rows[worst])
            places, labels = (sample_sheet.cells(source, name, order) for name in ("_source", schema.target.name))
            predictions = {name: value[worst] for name, value in suspects.predictions.items()}
            for position, line in zip(worst, sample_sheet.prediction_lines(schema, predictions), strict=True):
                row = suspects.rows[position]
                i = int(np.searchsorted(order, row))
                lines.writerow([suspect, scores[position], row, suspects.split[position], places[i], labels[i], line])


def sheets(suspects: Suspects, schema: Schema, source: Path) -> dict[str, Any]:
    """Figures of the most doubtful labels, and of the farthest outliers."""
    doubtful = suspects.worst(suspects.doubts, DRAWN[0])
    predictions = {name: value[doubtful] for name, value in suspects.predictions.items()}
    lines = sample_sheet.prediction_lines(schema, predictions)
    far = suspects.worst(suspects.distances, DRAWN[1])
    times = [f"{suspects.distances[position]:.2g} times as far" for position in far]
    return {
        "suspects": sample_sheet.draw(schema, source, suspects.rows[doubtful], lines, "none", "labeled"),
        "outliers": sample_sheet.draw(schema, source, suspects.rows[far], times, "none", "labeled"),
    }


def _predict_from_neighbors(
    space: np.ndarray, y: np.ndarray, schema: Schema
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Predict each of samples [N, F] from its nearest neighbors; and its distance to them, [N], over the median."""
    near, distances = nearest(space)
    far = distances.mean(1)
    predictions = samples.of(schema.target).predict_from(y[near], 1 / np.maximum(distances, TOUCHING), schema.target)
    return predictions, far / max(float(np.median(far)), TOUCHING)


def _take(split: Split, positions: np.ndarray) -> Split:
    return Split(tuple(block[positions] for block in split.blocks), split.target[positions], split.rows[positions])


def _stored(split: Split) -> np.ndarray:
    """The arrays joined [N, F], thinned evenly to about VALUES columns."""
    flat = [block.reshape(len(split), math.prod(block.shape[1:])) for block in split.blocks]
    every = -(-sum(block.shape[1] for block in flat) // VALUES)
    return np.concatenate([block[:, ::every].astype(np.float32) for block in flat], axis=1)


def _features(network: Any, split: Split) -> np.ndarray:
    """The network's features [N, F], the input of its head."""
    import torch

    parts = [np.empty((0, network.trunk.width), np.float32)]
    with torch.inference_mode():
        for first in range(0, len(split), BATCH):
            blocks = [torch.from_numpy(block[first : first + BATCH].copy()) for block in split.blocks]
            parts.append(network.features(blocks).numpy())
    return np.concatenate(parts)
