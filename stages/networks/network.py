"""A network of encoders, trunk and head: built from their names, stored as one file."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import safetensors
import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from stages.core.errors import Invalid
from stages.core.faults import invalid
from stages.core.lookup import load_module
from stages.core.words import modules
from stages.networks import augmentations, encoders, heads, trunks
from stages.networks.draws import Draws
from stages.schema import Schema, kind, kinds

Spec = dict[str, Any]  # {"encoders": {block: {"name": ..., option: ...}}, "trunk": {...}, "head": {...}}


class Network(nn.Module):
    """An encoder for each block, in the order of `schema.blocks()`, then trunk and head.

    Raises:
        ValueError: the spec names a part or an option that does not exist.
    """

    def __init__(self, schema: Schema, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        # a ModuleList, since the name of a block may contain dots
        self.encoders = nn.ModuleList(
            _part("Encoder", spec["encoders"][block.name], f"model.encoders.{block.name}")(block)
            for block in schema.blocks()
        )
        self.trunk = _part("Trunk", spec["trunk"], "model.trunk")([encoder.shape for encoder in self.encoders])
        self.head = _part("Head", spec["head"], "model.head")(schema.target, self.trunk.width)

    def forward(self, blocks: Sequence[Tensor]) -> Tensor:
        """Blocks [N, *shape] as stored -> scores."""
        return self.head(self.features(blocks))

    def features(self, blocks: Sequence[Tensor]) -> Tensor:
        """Blocks [N, *shape] as stored -> the head's input, [N, F]."""
        return self.trunk([encoder(x) for encoder, x in zip(self.encoders, blocks, strict=True)])

    def predict(self, scores: Tensor) -> dict[str, Tensor]:
        """Scores -> the target's outputs, {name: [N, *shape]}."""
        return self.head.predict(scores)


def resolve(schema: Schema, model: Mapping[str, Any]) -> Spec:
    """The `model` section of `params.yaml` -> a full spec with every default. The schema need not be fitted yet.

    A block's encoder is the one given for its name, else for its kind, else its kind's default.

    Raises:
        ValueError: an invalid name, option or value; the message names the key and the nearest valid one.
    """
    encoders, blocks = model.get("encoders", {}), schema.groups()
    known = [*blocks, *(name for name in modules(kinds) if not name.startswith("target_"))]
    for name in encoders:
        _check(name, known, "model.encoders", "block or kind")

    def full(role: str, name: str, given: Mapping[str, Any], where: str) -> Spec:
        named = {"name": name} | dict(given)
        return {"name": named["name"]} | _options(role, named, where)

    spec: Spec = {"encoders": {}}
    for block, columns in blocks.items():
        kind_name = columns[0].kind
        given = encoders.get(block, encoders.get(kind_name, {}))
        spec["encoders"][block] = full("Encoder", kind(kind_name).ENCODER, given, f"model.encoders.{block}")
    spec["trunk"] = full("Trunk", "concat", model.get("trunk", {}), "model.trunk")
    spec["head"] = full("Head", schema.target.kind.removeprefix("target_"), model.get("head", {}), "model.head")
    return json.loads(json.dumps(spec))  # tuples become lists, as when the spec is read from a file


def save(path: Path, state_dict: Mapping[str, Tensor], spec: Spec) -> None:
    """Weights and spec as one safetensors file; equal contents give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    # one key alone: safetensors writes several in random order
    metadata = {"network": json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)}
    Path(path).write_bytes(safetensors.torch.save(tensors, metadata))


def load(path: Path, schema: Schema) -> Network:
    """Load a network that `save` wrote, on the CPU, in evaluation mode.

    Raises:
        ValueError: the file is of another kind, or the network was trained with another schema.
    """
    spec, tensors = _read(path)
    if spec is None:
        raise ValueError(f"{path} does not say what network it holds: it was not written by millrace")
    if set(spec["encoders"]) != {block.name for block in schema.blocks()}:
        raise ValueError(f"{path} reads {', '.join(spec['encoders'])}, which is not what the schema holds")
    network = Network(schema, spec)
    _fill(network, tensors, {name: name for name in tensors}, path)
    return network.eval()


def initialize(network: Network, path: Path, name_map: Mapping[str, str]) -> list[str]:
    """Initialize a network with the weights of a safetensors file; return the names of the tensors that were set.

    Args:
        name_map: {name in the file: name in the network}, of tensors or of modules such as `encoders.0`; nothing else
            is loaded. Empty: every tensor, under its own name.

    Raises:
        ValueError: a tensor is missing, superfluous or of another shape.
    """
    _, tensors = _read(path)
    pairs: dict[str, str] = {}
    for there, here in name_map.items():
        below = [name for name in tensors if name == there or name.startswith(f"{there}.")]
        if not below:
            _check(there, list(tensors), "name_map", f"tensor of {path}")
        pairs |= {name: here + name[len(there) :] for name in below}
    return _fill(network, tensors, pairs or {name: name for name in tensors}, path, partly=bool(pairs))


def augmenter(
    schema: Schema, options: Mapping[str, Mapping[str, Any]]
) -> Callable[[Sequence[Tensor], Draws], list[Tensor]]:
    """The `train.augment` section, by block or by kind -> a function (blocks as stored, draws) -> augmented blocks.

    Raises:
        ValueError: an invalid option; the message names the key and the nearest valid one.
    """
    blocks = schema.groups()
    known = [*blocks, *modules(augmentations)]
    steps: list[Callable[[Tensor, Draws], Tensor] | None] = []
    for name in options:
        _check(name, known, "train.augment", "block or kind")
    for block, columns in blocks.items():
        given = options.get(block, options.get(columns[0].kind, {}))
        steps.append(_augment(columns[0].kind, given, f"train.augment.{block}") if given else None)

    def augment(arrays: Sequence[Tensor], draws: Draws) -> list[Tensor]:
        return [step(x, draws) if step else x for step, x in zip(steps, arrays, strict=True)]

    return augment


class _Encoders(Protocol):
    """A module of `encoders`."""

    Encoder: type[nn.Module]


class _Trunks(Protocol):
    """A module of `trunks`."""

    Trunk: type[nn.Module]


class _Heads(Protocol):
    """A module of `heads`."""

    Head: type[nn.Module]


class _Augmentations(Protocol):
    """A module of `augmentations`."""

    Options: Callable[..., Any]

    def augment(self, x: Tensor, options: Any, draws: Draws) -> Tensor:
        """Change a batch of a block, [N, *shape], at random."""
        ...


def _encoder(name: str) -> type[nn.Module]:
    return load_module(f"stages.networks.encoders.{name}", _Encoders).Encoder


def _trunk(name: str) -> type[nn.Module]:
    return load_module(f"stages.networks.trunks.{name}", _Trunks).Trunk


def _head(name: str) -> type[nn.Module]:
    return load_module(f"stages.networks.heads.target_{name}", _Heads).Head


# By role: the package of its modules, the prefix of their names, and the function that loads a module's class.
_PARTS = {"Encoder": (encoders, "", _encoder), "Trunk": (trunks, "", _trunk), "Head": (heads, "target_", _head)}


def _class(role: str, name: str, where: str) -> type[nn.Module]:
    package, prefix, load_class = _PARTS[role]
    _check(name, [module.removeprefix(prefix) for module in modules(package)], where, role.lower())
    return load_class(name)


def _options(role: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The given options, checked against the keyword parameters of the class, with defaults for the others."""
    part = _class(role, given["name"], where)
    hints = get_type_hints(part.__init__, include_extras=True)
    parameters = inspect.signature(part).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY or p.default is not p.empty}
    for name in sorted(given.keys() - {"name"}):
        _check(name, list(options), where, "option")
        options[name] = _value(hints.get(name, Any), given[name], f"{where}.{name}")
    for name, value in options.items():
        if value is inspect.Parameter.empty:
            raise Invalid("params-missing-key", f"{where} needs the option {name!r}")
    return options


def _part(role: str, spec: Mapping[str, Any], where: str) -> Callable[..., Any]:
    return partial(_class(role, spec["name"], where), **_options(role, spec, where))


def _augment(kind_name: str, given: Mapping[str, Any], where: str) -> Callable[[Tensor, Draws], Tensor]:
    if kind_name not in modules(augmentations):
        raise Invalid("params-unknown-augmentation", f"{where}: there is no augmentation for the kind {kind_name!r}")
    module = load_module(f"stages.networks.augmentations.{kind_name}", _Augmentations)
    for name in given:
        _check(name, list(inspect.signature(module.Options).parameters), where, "option")
    options = _value(module.Options, given, where)
    return lambda x, draws: module.augment(x, options, draws)


def _check(name: str, known: Iterable[str], where: str, what: str) -> None:
    """Raise ValueError with the nearest of `known`, unless `name` is one of them."""
    names = sorted(set(known))
    if name not in names:
        nearest = difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        sentence = f"{where}: no {what} {name!r}{hint} (there are: {', '.join(names)})"
        if what == "option":
            raise Invalid("params-unknown-key", sentence)
        if what == "block or kind":
            raise Invalid("params-unknown-column", sentence)
        raise Invalid("params-unknown-network", sentence)


def _value(hint: Any, value: Any, where: str) -> Any:
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *map(str, first["loc"])])
        raise invalid(first["type"], f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def _read(path: Path) -> tuple[Spec | None, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise Invalid(
            "train-weights-unreadable", f"{path} is not a safetensors file that can be read: {error}"
        ) from error
    return (json.loads(metadata["network"]) if "network" in metadata else None), tensors


def _fill(
    network: Network, tensors: Mapping[str, Tensor], pairs: Mapping[str, str], path: Path, partly: bool = False
) -> list[str]:
    state = network.state_dict()
    faults = [f"{here} is not in the network" for here in pairs.values() if here not in state]
    faults += [
        f"{here} is {list(state[here].shape)} here and {list(tensors[there].shape)} there"
        for there, here in pairs.items()
        if here in state and state[here].shape != tensors[there].shape
    ]
    if not partly:
        faults += [f"{name} is not in the file" for name in state if name not in pairs.values()]
    if faults:
        more = f", and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise Invalid("train-weights-misfit", f"{path} does not fit: {'; '.join(faults[:5])}{more}")
    network.load_state_dict({here: tensors[there] for there, here in pairs.items()}, strict=False)
    return sorted(pairs.values())
