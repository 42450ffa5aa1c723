"""A clean sheet: what params.yaml has of every setting that belongs to a data set, before anything is known of it."""

from __future__ import annotations

import copy
from typing import Any

# Settings of the host, such as train.devices, export.max_batch and serve, belong to no data set and stay.
FRESH: dict[str, dict[str, Any]] = {
    "schema": {"features": {}, "target": {}, "keep": []},
    "validate": {
        "min_rows": 50,
        "max_quarantined": 0.05,
        "max_rejected": 0.05,
        "warn_leakage": 0.95,
        "max_leakage": "none",
        "columns": {},
    },
    "split": {"by": "hash", "column": "none", "val": 0.1, "test": 0.2},
    "model": {
        "encoders": {},
        "trunk": {},
        "head": {},
        "init_from": "none",
        "init_sha256": "none",
        "name_map": {},
        "freeze_encoders": False,
    },
    "train": {
        "seed": 0,
        "optimizer": "adamw",
        "momentum": 0.9,
        "schedule": "one_cycle",
        "l1": 0.0,
        "clip_norm": 0.0,
        "accumulate": 1,
        "augment": {},
        "debug": "none",
    },
    "gate": {
        "thresholds": {},
        "margins": {},
        "slices": {},
        "level": 0.05,
        "robustness": {},
        "max_disagreement": 1.0,
        "approval": [],
        "yardsticks": {"above_constant": True, "margin": 0.02},  # what new data allow is not known
        "drift": {"max_distance": 0.2, "train_test": 0.2, "columns": {}, "min_rows": 200},
    },
}


def over(changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The clean sheet with the changes of a new data set on it, section by section."""
    sheet = copy.deepcopy(FRESH)
    for section, values in changes.items():
        sheet[section] = sheet.get(section, {}) | values
    return sheet
