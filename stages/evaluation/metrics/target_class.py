"""Metrics of one label out of a fixed set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
)
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from stages.schema import Column

if TYPE_CHECKING:
    pass

_OF_ALL = ("accuracy", "precision_macro", "recall_macro", "recall_worst", "f1_macro", "auroc", "calibration_error")
METRICS = dict.fromkeys(_OF_ALL, (0.0, 1.0))  # their names and least and largest values
METRICS_BY_LABEL = dict.fromkeys(("precision", "recall", "f1"), (0.0, 1.0))  # `recall[LABEL]` in params.yaml
THRESHOLDS = {"f1_macro": {"min": 0.5}}  # to begin with, for a person to raise
MARGINS = {"accuracy": 0.02}  # by which a model may be worse than the released one
EXPECTED: dict[str, Any] = {"max_labels": None}  # of a table's target, where alike rows may well differ in it
BINS = 15  # of the calibration error and of the reliability diagram


class _AUROC(MulticlassAUROC):
    """Exact, each label against the rest; leaves out labels that the split lacks, which torchmetrics counts as 0."""

    def compute(self) -> Tensor:  # type: ignore[override]
        preds_NxC, y_N = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        counts = torch.bincount(y_N, minlength=self.num_classes)
        defined = ((counts > 0) & (counts < len(y_N))).nonzero().flatten().tolist()
        if not defined:
            return preds_NxC.new_tensor(torch.nan)
        each = [binary_auroc(preds_NxC[:, code], y_N == code, validate_args=False) for code in defined]
        return torch.stack(each).mean()


class _OfTrueLabels(MulticlassStatScores):
    """Leaves out labels that no sample has; torchmetrics counts those as 0 once one of them is predicted."""

    def compute(self) -> Tensor:
        scores = super().compute()[self.tp + self.fn > 0]
        return self.reduce(scores) if len(scores) else scores.new_tensor(torch.nan)

    def reduce(self, scores: Tensor) -> Tensor:
        """Their mean, in torchmetrics' own order of steps."""
        return (scores / len(scores)).sum()


class _MacroPrecision(_OfTrueLabels, MulticlassPrecision): ...


class _MacroRecall(_OfTrueLabels, MulticlassRecall): ...


class _MacroF1(_OfTrueLabels, MulticlassF1Score): ...


class _WorstRecall(_OfTrueLabels, MulticlassRecall):
    def reduce(self, scores: Tensor) -> Tensor:
        return scores.min()


def metrics(target: Column) -> MetricCollection:
    """What training, evaluation and gate measure; `update(probabilities [N, C], y [N])`.

    `compute()` gives scalars, for each label the vectors `precision`, `recall` and `f1` [C], and `confusion` [C, C]
    with a row for each true label. `auroc`, `recall_worst` and the macro averages are over the labels that y has.
    """
    labels = len(target.fitted["labels"])
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(labels, average="micro"),
            "precision_macro": _MacroPrecision(labels, average="none"),
            "recall_macro": _MacroRecall(labels, average="none"),
            "recall_worst": _WorstRecall(labels, average="none"),
            "f1_macro": _MacroF1(labels, average="none"),
            "auroc": _AUROC(labels),
            "calibration_error": MulticlassCalibrationError(labels, n_bins=BINS),
            "precision": MulticlassPrecision(labels, average="none"),
            "recall": MulticlassRecall(labels, average="none"),
            "f1": MulticlassF1Score(labels, average="none"),
            "confusion": MulticlassConfusionMatrix(labels),
        },
        # given, since torchmetrics would guess them from the numbers of the first batch
        compute_groups=[
            ["accuracy"],
            ["precision_macro", "recall_macro", "recall_worst", "f1_macro", "precision", "recall", "f1"],
            ["auroc"],
            ["calibration_error"],
            ["confusion"],
        ],
    )


def scalars(computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
    """What `metrics` computed as plain numbers: `accuracy`, ..., and for each label `recall[LABEL]`, ..."""
    values = {name: float(value) for name, value in computed.items() if value.ndim == 0}
    for name, value in computed.items():
        if value.ndim == 1:
            values |= {f"{name}[{label}]": float(x) for label, x in zip(target.fitted["labels"], value, strict=True)}
    return values


def hits(answers: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics that are shares of hits: of probabilities [N, C] and codes [N], which hit, and which count: bool [N].

    Which samples count depends on the truth alone, so that two models can be compared on the same.
    """
    right = answers.argmax(1) == y
    of_labels = {f"recall[{label}]": (right, y == code) for code, label in enumerate(target.fitted["labels"])}
    return {"accuracy": (right, np.ones(len(y), bool)), **of_labels}


def undefined(y: np.ndarray, target: Column) -> set[str]:
    """The metrics that codes [N] do not define, whatever was answered: those of labels that no sample has, ..."""
    counts = np.bincount(y, minlength=len(target.fitted["labels"]))
    lacking = [label for label, count in zip(target.fitted["labels"], counts, strict=True) if not count]
    of_labels = {f"{metric}[{label}]" for metric in METRICS_BY_LABEL for label in lacking}
    return of_labels | (set() if (counts > 0).sum() > 1 else {"auroc"})
