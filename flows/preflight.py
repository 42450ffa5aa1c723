"""Checks before a run for mistakes that it would otherwise find only after hours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import Invalid, Misuse
from stages.core.words import nearest
from stages.evaluation import metrics
from stages.schema import Column, Schema
from stages.settings import params, sections
from stages.settings.gate import Bound
from stages.training.devices import on_gpu
from stages.training.earlier_weights import pinned


def everything(settings: sections.Params) -> None:
    """Check parameters that only the network's files and this machine's devices can judge; imports torch.

    Raises:
        Misuse: a parameter is wrong; the message names its key.
    """
    import torch

    declared = settings.schema.unfitted()
    network(declared, settings.model, settings.train.augment)
    thresholds(settings.gate.thresholds, settings.gate.margins, declared.target)
    for column, bounds in settings.gate.slices.items():
        thresholds(bounds.thresholds, bounds.margins, declared.target, f"gate.slices.{column}")
    on_gpu(settings.train, torch.cuda.device_count())
    if settings.model.init_from != "none":
        pinned(Path(settings.model.init_from), settings.model.init_sha256)


def due() -> bool:
    """Whether `everything` has to check values with which the stages have not succeeded before."""
    return not (params.accepted("train") and params.accepted("gate"))


def data(path: Path, builtin: Path, name: str) -> None:
    """Check that the data exist.

    Args:
        path: `data.path`.
        builtin: the folder of the built-in data sets.
        name: the built-in set that the stage `fetch` makes.

    Raises:
        Misuse: they do not; the message says how to get them.
    """
    if path.exists() or path == builtin / name:
        return
    if builtin in path.parents:
        raise Misuse(
            "data-unknown-builtin",
            f"params.yaml: data.path: there is no built-in set {path}: data.builtin makes {builtin / name}",
        )
    pointer = path.with_name(f"{path.name}.dvc")
    remedy = f"`dvc pull {pointer}` brings it here" if pointer.exists() else "bring it there with `millrace data add`"
    raise Misuse("data-not-found", f"params.yaml: data.path: there is no {path}: {remedy}")


def champion(paths: Mapping[str, str]) -> None:
    """Check that the champion's files in git exist and are JSON.

    Raises:
        Misuse: a file is missing or damaged; the message says how to restore it.
    """
    for path in (Path(paths[name]) for name in ("champion", "champion_verdict", "released_statistics")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problem = "is not JSON" if path.exists() else "is missing"
            raise Misuse("champion-damaged", f"{path} {problem}: `git checkout {path}` restores it") from error


def network(declared: Schema, model: sections.Model, augment: Mapping[str, Any]) -> None:
    """Check that every part of the network, every option and every augmentation exists.

    Raises:
        Misuse: the first that does not, with its key and the nearest name.
    """
    from stages.networks import network

    try:
        network.resolve(declared, {"encoders": model.encoders, "trunk": model.trunk, "head": model.head})
        network.augmenter(declared, augment)
    except Invalid as error:
        raise Misuse(error.code, f"params.yaml: {error}") from error
    except ValueError as error:
        raise Misuse("params-invalid-network", f"params.yaml: {error}") from error


def thresholds(
    bounds: Mapping[str, Bound], margins: Mapping[str, float], target: Column, section: str = "gate"
) -> None:
    """Check that metrics of these names are measured and can satisfy their bounds.

    Raises:
        Misuse: the first that is not measured, with the nearest name, or that cannot satisfy its bound.
    """
    measures = metrics.of(target)
    ranges = measures.METRICS | {f"{name}[LABEL]": limits for name, limits in measures.METRICS_BY_LABEL.items()}
    for key, names in {"thresholds": bounds, "margins": margins}.items():
        for name in names:
            if _metric(name) not in ranges:
                hint = nearest(_metric(name), ranges)
                remedy = "" if hint.endswith("?") else ": delete it, or write another"
                where = f"{section}.{key} of a target of kind {target.kind.removeprefix('target_')}"
                raise Misuse(
                    "params-unknown-metric", f"params.yaml: {where}: there is no metric {name!r}{hint}{remedy}"
                )
    for name, bound in bounds.items():
        low, high = ranges[_metric(name)]
        if bound.min is not None and bound.min > high:
            raise Misuse(
                "params-impossible-threshold",
                f"params.yaml: {section}.thresholds.{name}.min is {bound.min:g}, but it is never over {high:g}",
            )
        if bound.max is not None and bound.max < low:
            raise Misuse(
                "params-impossible-threshold",
                f"params.yaml: {section}.thresholds.{name}.max is {bound.max:g}, but it is never under {low:g}",
            )


def _metric(name: str) -> str:
    """The name of a metric, with LABEL in the place of a class."""
    name_only, bracket, rest = name.partition("[")
    return f"{name_only}[LABEL]" if bracket and rest.endswith("]") else name
