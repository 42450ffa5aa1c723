"""One label out of a fixed set: scores, loss, metrics and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
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
    from matplotlib.figure import Figure

_OF_ALL = ("accuracy", "precision_macro", "recall_macro", "recall_worst", "f1_macro", "auroc", "calibration_error")
METRICS = dict.fromkeys(_OF_ALL, (0.0, 1.0))  # their names and least and largest values
METRICS_BY_LABEL = dict.fromkeys(("precision", "recall", "f1"), (0.0, 1.0))  # `recall[LABEL]` in params.yaml
THRESHOLDS = {"f1_macro": {"min": 0.5}}  # to begin with, for a person to raise
MARGINS = {"accuracy": 0.02}  # by which a model may be worse than the released one
EXPECTED: dict[str, Any] = {"max_labels": None}  # of a table's target, where alike rows may well differ in it
BINS = 15  # of the calibration error and of the reliability diagram


class Head(nn.Module):
    """Features [N, F] -> logits [N, C].

    Args:
        label_smoothing: share of the certainty that is spread over all labels.
        class_weights: "balanced" makes every label weigh the same in the loss, however rare it is.
    """

    weight: Tensor

    def __init__(
        self,
        target: Column,
        width: int,
        *,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__()
        counts = torch.tensor(target.fitted["counts"], dtype=torch.float32)
        balanced = counts.sum() / (len(counts) * counts)  # the mean weight of a training sample is 1
        self.register_buffer(
            "weight", balanced if class_weights == "balanced" else torch.ones_like(counts), persistent=False
        )
        self.label_smoothing = label_smoothing
        self.linear = nn.Linear(width, len(counts))

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Cross entropy of logits [N, C] with codes int64 [N].

        A plain mean over the batch, so that gradients averaged over equal shards are those of one process.
        """
        each_N = functional.cross_entropy(scores.float(), y, reduction="none", label_smoothing=self.label_smoothing)
        return (each_N * self.weight[y]).mean()

    def answer(self, scores: Tensor) -> dict[str, Tensor]:
        """Logits [N, C] -> {"probabilities": float32 [N, C]}."""
        return {"probabilities": scores.float().softmax(1)}


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


def trees(x: np.ndarray, y: np.ndarray, categories: list[int], new: np.ndarray) -> dict[str, np.ndarray]:
    """What boosted trees that learnt from [N, C] with codes y [N] answer to `new` [M, C], as the head would."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(categorical_features=categories, random_state=0).fit(x, y)
    return {"probabilities": model.predict_proba(new).astype(np.float32)}


def told_by(near: np.ndarray, weights: np.ndarray, target: Column) -> dict[str, np.ndarray]:
    """What codes [N, K] of others, with weights [N, K], tell of each, as the head would answer: each label's share."""
    votes = np.zeros((len(near), len(target.fitted["labels"])))
    np.add.at(votes, (np.arange(len(near))[:, None], near), weights)
    return {"probabilities": (votes / votes.sum(1, keepdims=True)).astype(np.float32)}


def doubts(answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> np.ndarray:
    """How unlikely each label is by answers of which it had no part, [N]: 1 less its own probability.

    "Self-confidence" of Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    Journal of Artificial Intelligence Research 2021.
    """
    return 1 - np.asarray(answers["probabilities"], np.float64)[np.arange(len(y)), y]


def worst(answers: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """The positions of wrong answers, the most confident first."""
    probabilities = np.asarray(answers["probabilities"])
    wrong = np.flatnonzero(probabilities.argmax(1) != y)
    return wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")]


def plots(answers: Mapping[str, np.ndarray], y: np.ndarray, target: Column) -> dict[str, Figure]:
    """Outputs {"probabilities": [N, C]} and codes [N] -> `confusion` and `reliability`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def figure(draw: Any, *arguments: Any) -> Figure:
        drawn = Figure(figsize=(6.4, 5.6), dpi=100, layout="constrained")
        FigureCanvasAgg(drawn)  # no pyplot: no global state, no window
        draw(drawn.subplots(), *arguments)
        return drawn

    probabilities, y = np.asarray(answers["probabilities"]), np.asarray(y)
    return {
        "confusion": figure(_draw_confusion, probabilities, y, target.fitted["labels"]),
        "reliability": figure(_draw_reliability, probabilities, y),
    }


def _draw_confusion(axes: Any, probabilities: np.ndarray, y: np.ndarray, labels: list[str]) -> None:
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (y, probabilities.argmax(1)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answered", ylabel="true", title="Confusion")
    ticks = np.arange(len(labels))
    axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(ticks, labels)
    if len(labels) <= 20:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)


def _draw_reliability(axes: Any, probabilities: np.ndarray, y: np.ndarray) -> None:
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    edges = np.linspace(0, 1, BINS + 1)
    own = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    count = np.bincount(own, minlength=BINS)
    accuracy = np.bincount(own, right, BINS) / np.maximum(count, 1)
    axes.bar(edges[:-1], accuracy, width=1 / BINS, align="edge", color="tab:blue", edgecolor="white")
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="probability of the answer", ylabel="share of right answers", title="Reliability")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for edge, height, samples in zip(edges, accuracy, count, strict=False):
        if samples:
            axes.text(edge + 0.5 / BINS, min(height + 0.01, 0.97), samples, ha="center", fontsize=6)
