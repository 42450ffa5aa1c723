"""Metrics of a classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

_OF_ALL = ("accuracy", "precision_macro", "recall_macro", "recall_worst", "f1_macro", "auroc", "calibration_error")
METRICS = dict.fromkeys(_OF_ALL, (0.0, 1.0))  # by name, the smallest and the largest value
METRICS_BY_LABEL = dict.fromkeys(("precision", "recall", "f1"), (0.0, 1.0))  # `recall[LABEL]` in params.yaml
MARGINS = {"accuracy": 0.02}  # by which a model may be worse than the released one
# of a table's target, for `validate.columns`: rows with equal features may have different classes
EXPECTED: dict[str, Any] = {"max_labels": None}
MAJORITY = 0.8  # share of a class, from which on even a good model may have no more right answers than the constant one
BINS = 15  # of the calibration error and of the reliability diagram


class _AUROC(MulticlassAUROC):
    """Exact, each class against the rest. Leaves out classes without samples, which torchmetrics counts as 0."""

    def compute(self) -> Tensor:  # type: ignore[override]
        preds_NxC, y_N = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        counts = torch.bincount(y_N, minlength=self.num_classes)
        defined = ((counts > 0) & (counts < len(y_N))).nonzero().flatten().tolist()
        if not defined:
            return preds_NxC.new_tensor(torch.nan)
        values = [binary_auroc(preds_NxC[:, code], y_N == code, validate_args=False) for code in defined]
        return torch.stack(values).mean()


class _OfTrueClasses(MulticlassStatScores):
    """Leaves out classes without samples; torchmetrics counts them as 0 if one of them is predicted."""

    def compute(self) -> Tensor:
        samples: Any = self.tp + self.fn  # type: ignore[operator]  # tensors, since `average` is not samples
        scores = super().compute()[samples > 0]
        return self.reduce(scores) if len(scores) else scores.new_tensor(torch.nan)

    def reduce(self, scores: Tensor) -> Tensor:
        """The mean, computed in the same order as torchmetrics."""
        return (scores / len(scores)).sum()


class _MacroPrecision(_OfTrueClasses, MulticlassPrecision): ...


class _MacroRecall(_OfTrueClasses, MulticlassRecall): ...


class _MacroF1(_OfTrueClasses, MulticlassF1Score): ...


class _WorstRecall(_OfTrueClasses, MulticlassRecall):
    def reduce(self, scores: Tensor) -> Tensor:
        return scores.min()


def metrics(target: Column) -> MetricCollection:
    """The metrics of training, evaluation and gate; `update(probabilities [N, C], y [N])`.

    `compute()` returns scalars, the vectors `precision`, `recall` and `f1` [C] by class, and `confusion` [C, C] with a
    row for each true class. `auroc`, `recall_worst` and the macro averages are over the classes in y.
    """
    classes = len(target.fitted["labels"])
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "precision_macro": _MacroPrecision(classes, average="none"),
            "recall_macro": _MacroRecall(classes, average="none"),
            "recall_worst": _WorstRecall(classes, average="none"),
            "f1_macro": _MacroF1(classes, average="none"),
            "auroc": _AUROC(classes),
            "calibration_error": MulticlassCalibrationError(classes, n_bins=BINS),
            "precision": MulticlassPrecision(classes, average="none"),
            "recall": MulticlassRecall(classes, average="none"),
            "f1": MulticlassF1Score(classes, average="none"),
            "confusion": MulticlassConfusionMatrix(classes),
        },
        # explicit, since torchmetrics would infer them from the values of the first batch
        compute_groups=[
            ["accuracy"],
            ["precision_macro", "recall_macro", "recall_worst", "f1_macro", "precision", "recall", "f1"],
            ["auroc"],
            ["calibration_error"],
            ["confusion"],
        ],
    )


def scalars(computed: Mapping[str, Tensor], target: Column) -> dict[str, float]:
    """The computed metrics as plain numbers: `accuracy`, ..., and `recall[LABEL]`, ... of each class."""
    values = {name: float(value) for name, value in computed.items() if value.ndim == 0}
    for name, value in computed.items():
        if value.ndim == 1:
            values |= {f"{name}[{label}]": float(x) for label, x in zip(target.fitted["labels"], value, strict=True)}
    return values


def hits(predictions: np.ndarray, y: np.ndarray, target: Column) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics that are shares of hits, from probabilities [N, C] and codes [N]: which hit, which count, bool [N].

    Which samples count depends on the truth alone, so that two models can be compared on the same samples.
    """
    right = predictions.argmax(1) == y
    recalls = {f"recall[{label}]": (right, y == code) for code, label in enumerate(target.fitted["labels"])}
    return {"accuracy": (right, np.ones(len(y), bool)), **recalls}


def headline(target: Column) -> str:
    """The accuracy; `auroc` where nearly all training rows are of one class."""
    counts = target.fitted["counts"]
    return "auroc" if max(counts) > MAJORITY * sum(counts) else "accuracy"


def undefined(y: np.ndarray, target: Column) -> set[str]:
    """The metrics that codes [N] do not define, whatever is predicted: those of classes without samples, ..."""
    counts = np.bincount(y, minlength=len(target.fitted["labels"]))
    absent = [label for label, count in zip(target.fitted["labels"], counts, strict=True) if not count]
    undefined = {f"{metric}[{label}]" for metric in METRICS_BY_LABEL for label in absent}
    return undefined | (set() if (counts > 0).sum() > 1 else {"auroc"})
