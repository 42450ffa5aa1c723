"""Samples to look at, of all splits: labels that the nearest other samples do not have, and samples far from any other.

A label is told from the k nearest others, weighted by nearness (Bahri, Jiang and Gupta, "Deep k-NN for noisy labels",
ICML 2020), so that each sample is out of the fold that it is told from. How far these are marks an outlier (Ramaswamy,
Rastogi and Shim, "Efficient algorithms for mining outliers from large data sets", SIGMOD 2000). Both are means of two
views: the arrays, which know nothing of labels, and what the network makes of them, which knows what matters.
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

MOST = 5_000  # samples that are looked at, evenly spread over the splits
NEIGHBOURS = 10
TOUCHING = 1e-6  # a distance of nothing
VALUES = 1_024  # of a sample's array that are compared, evenly spread
BATCH = 256
LISTED = 100  # labels in doubt, and outliers
DRAWN = 18, 6  # of either, on a sheet


@dataclass(frozen=True)
class Suspects:
    """Of the samples at `rows` [N] of the table: `split` of each, what the nearest others tell, and two scores [N].

    `doubts`: by how much the label is another (`samples.doubts`). `distances`: to the nearest others, in the median's.
    """

    rows: np.ndarray
    split: np.ndarray
    told: Mapping[str, np.ndarray]
    doubts: np.ndarray
    distances: np.ndarray

    def worst(self, scores: np.ndarray, most: int) -> np.ndarray:
        """The positions of the highest scores, the highest first."""
        return np.argsort(-scores, kind="stable")[:most]


def find(network: Any, schema: Schema, arrays: Path) -> Suspects:
    """Look at samples of all splits."""
    splits = [open_split(arrays, name) for name in SPLITS]
    counts = [len(split) for split in splits]
    place = np.unique(np.linspace(0, sum(counts) - 1, min(MOST, sum(counts))).astype(np.int64))
    each = np.split(place, np.searchsorted(place, np.cumsum(counts)[:-1]))
    chosen = [
        _taken(split, own - first) for split, own, first in zip(splits, each, [0, *np.cumsum(counts)[:-1]], strict=True)
    ]
    y, rows = (np.concatenate([getattr(split, what) for split in chosen]) for what in ("target", "rows"))
    names = np.repeat(SPLITS, [len(split) for split in chosen])
    spaces = [np.concatenate([space(split) for split in chosen]) for space in (_stored, partial(_learnt, network))]
    told, distances = zip(*(_told(space, y, schema) for space in spaces), strict=True)
    both = {name: np.mean([each[name] for each in told], axis=0) for name in told[0]}
    doubts = samples.of(schema.target).doubts(both, y, schema.target)
    return Suspects(rows, names, both, doubts.round(4), np.mean(distances, axis=0).round(4))


def nearest(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples [N, F], NaN where missing -> positions of the nearest others [N, k], and how far they are."""
    import torch

    values = samples.astype(np.float32)
    known = np.isfinite(values)
    counts = np.maximum(known.sum(0), 1)
    centred = np.where(known, values - np.where(known, values, 0).sum(0) / counts, 0)
    std = np.sqrt((centred**2).sum(0) / counts)
    scaled = (centred / np.where(std > TOUCHING, std, 1)).astype(np.float32)
    x, parts = torch.from_numpy(scaled), []
    for first in range(0, len(x), BATCH):
        distances = torch.cdist(x[first : first + BATCH], x)
        own = torch.arange(len(distances))
        distances[own, first + own] = torch.inf
        parts.append(distances.topk(min(NEIGHBOURS, len(x) - 1), largest=False))
    return torch.cat([part.indices for part in parts]).numpy(), torch.cat([part.values for part in parts]).numpy()


def write(suspects: Suspects, schema: Schema, source: Path, path: Path) -> None:
    """The labels most in doubt, then the farthest outliers, a line each. `row`: in the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["suspect", "score", "row", "split", "source", "label", "neighbours"])
        for what, scores in (("label", suspects.doubts), ("outlier", suspects.distances)):
            worst = suspects.worst(scores, LISTED)
            order = np.sort(suspects.rows[worst])
            places, labels = (sample_sheet.cells(source, name, order) for name in ("_source", schema.target.name))
            told = sample_sheet.told(schema, {name: value[worst] for name, value in suspects.told.items()})
            for position, said in zip(worst, told, strict=True):
                row = suspects.rows[position]
                i = int(np.searchsorted(order, row))
                lines.writerow([what, scores[position], row, suspects.split[position], places[i], labels[i], said])


def sheets(suspects: Suspects, schema: Schema, source: Path) -> dict[str, Any]:
    """Figures of the labels most in doubt, and of the farthest outliers."""
    doubted = suspects.worst(suspects.doubts, DRAWN[0])
    said = sample_sheet.told(schema, {name: value[doubted] for name, value in suspects.told.items()})
    far = suspects.worst(suspects.distances, DRAWN[1])
    times = [f"{suspects.distances[position]:.2g} times as far" for position in far]
    return {
        "suspects": sample_sheet.draw(schema, source, suspects.rows[doubted], said, "none", "labelled"),
        "outliers": sample_sheet.draw(schema, source, suspects.rows[far], times, "none", "labelled"),
    }


def _told(space: np.ndarray, y: np.ndarray, schema: Schema) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the nearest of samples [N, F] tell of each, and how far they are, [N], in the median's."""
    near, distances = nearest(space)
    far = distances.mean(1)
    told = samples.of(schema.target).told_by(y[near], 1 / np.maximum(distances, TOUCHING), schema.target)
    return told, far / max(float(np.median(far)), TOUCHING)


def _taken(split: Split, positions: np.ndarray) -> Split:
    return Split(tuple(block[positions] for block in split.blocks), split.target[positions], split.rows[positions])


def _stored(split: Split) -> np.ndarray:
    """The arrays side by side [N, F], or values evenly spread over them."""
    flat = [block.reshape(len(split), math.prod(block.shape[1:])) for block in split.blocks]
    every = -(-sum(block.shape[1] for block in flat) // VALUES)
    return np.concatenate([block[:, ::every].astype(np.float32) for block in flat], axis=1)


def _learnt(network: Any, split: Split) -> np.ndarray:
    """What the head is given [N, F]."""
    import torch

    parts = [np.empty((0, network.trunk.width), np.float32)]
    with torch.inference_mode():
        for first in range(0, len(split), BATCH):
            blocks = [torch.from_numpy(block[first : first + BATCH].copy()) for block in split.blocks]
            parts.append(network.features(blocks).numpy())
    return np.concatenate(parts)
