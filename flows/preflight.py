"""What a run could only find out after hours of work, looked at before it begins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import Misuse
from stages.core.words import nearest
from stages.evaluation import metrics
from stages.schema import Column
from stages.settings import params, sections
from stages.training.devices import on_gpu
from stages.training.earlier_weights import pinned


def everything(said: sections.Params) -> None:
    """Hold params against what only the network's own files and this machine's devices know of; imports torch.

    Raises:
        Misuse: names the key that is wrong.
    """
    import torch

    declared = said.schema_.unfitted()
    network(declared, said.model, said.train.augment)
    thresholds(said.gate.thresholds, said.gate.margins, declared.target)
    for by, asked in said.gate.slices.items():
        thresholds(asked.thresholds, asked.margins, declared.target, f"gate.slices.{by}")
    on_gpu(said.train, torch.cuda.device_count())
    if said.model.init_from != "none":
        pinned(Path(said.model.init_from), said.model.init_sha256)


def due() -> bool:
    """Whether `everything` has something to look at: values that the stages have not ended well with before."""
    return not (params.accepted("train") and params.accepted("gate"))


def data(path: Path, builtin: Path, name: str) -> None:
    """Look whether the data are where params say. `name` is that of the built-in set, which a stage makes.

    Raises:
        Misuse: they are not; it says what brings them there.
    """
    if path.exists() or path == builtin / name:
        return
    if builtin in path.parents:
        raise Misuse(f"params.yaml: data.path: there is no built-in set {path}: data.builtin makes {builtin / name}")
    pointer = path.with_name(f"{path.name}.dvc")
    remedy = f"`dvc pull {pointer}` brings it here" if pointer.exists() else "bring it there with `millrace data add`"
    raise Misuse(f"params.yaml: data.path: there is no {path}: {remedy}")


def champion(paths: Mapping[str, str]) -> None:
    """Look whether what git knows of the released model is there, and is JSON.

    Raises:
        Misuse: a file is lost or damaged; it says what restores it.
    """
    for path in (Path(paths[name]) for name in ("champion", "champion_verdict", "released_statistics")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            what = "is no JSON" if path.exists() else "is not there"
            raise Misuse(f"{path} {what}: `git checkout {path}` restores it") from error


def network(declared: Any, model: Any, augment: Mapping[str, Any]) -> None:
    """Look whether every part of the network, every option and every augmentation is one.

    Raises:
        Misuse: the first that is not, by its key, with the nearest.
    """
    from stages.networks import network

    try:
        network.resolve(declared, {"encoders": model.encoders, "trunk": model.trunk, "head": model.head})
        network.augmenter(declared, augment)
    except ValueError as error:
        raise Misuse(f"params.yaml: {error}") from error


def thresholds(bounds: Mapping[str, Any], margins: Mapping[str, float], target: Column, within: str = "gate") -> None:
    """Look whether metrics of these names will be measured, and whether they can hold their bounds.

    Raises:
        Misuse: the first that will not, with the nearest, or that cannot.
    """
    measures = metrics.of(target)
    ranges = measures.METRICS | {f"{name}[LABEL]": limits for name, limits in measures.METRICS_BY_LABEL.items()}
    for key, names in {"thresholds": bounds, "margins": margins}.items():
        for name in names:
            if _metric(name) not in ranges:
                near = nearest(_metric(name), ranges)
                instead = "" if near.endswith("?") else ": delete it, or write another"
                of = f"{within}.{key} of a target of kind {target.kind.removeprefix('target_')}"
                raise Misuse(f"params.yaml: {of}: there is no metric {name!r}{near}{instead}")
    for name, bound in bounds.items():
        low, high = ranges[_metric(name)]
        if bound.min is not None and bound.min > high:
            raise Misuse(f"params.yaml: {within}.thresholds.{name}.min is {bound.min:g}, but it is never over {high:g}")
        if bound.max is not None and bound.max < low:
            raise Misuse(f"params.yaml: {within}.thresholds.{name}.max is {bound.max:g}, but it is never under {low:g}")


def _metric(name: str) -> str:
    """A label's metric without its label."""
    whole, of, rest = name.partition("[")
    return f"{whole}[LABEL]" if of and rest.endswith("]") else name
