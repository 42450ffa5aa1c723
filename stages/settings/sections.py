"""The sections of `params.yaml`, strict and frozen, and error messages about them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass

from stages import schema
from stages.core.errors import Invalid
from stages.core.faults import invalid
from stages.core.lookup import load_module
from stages.core.words import modules, nearest
from stages.gating import perturbations
from stages.schema import kinds, views
from stages.settings.gate import Change, Gate
from stages.settings.section import Positive, Section, Share
from stages.settings.split import Split
from stages.tables import distributions, sources
from stages.validation import expectations

Options = dict[str, Any]


class Data(Section):
    """Where the raw data lie, and how they are written."""

    builtin: Literal["digits", "breast-cancer", "diabetes"]
    path: str
    format: str
    options: Options

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if parts[:2] not in (("data", "raw"), ("data", "builtin")) or len(parts) < 3 or ".." in parts:
            remedy = f"bring it there with `millrace data add {shlex.quote(path)}`"
            raise Invalid("params-data-elsewhere", f"{path!r} is not in data/raw/: {remedy}")
        if not re.fullmatch(r"[\w./-]+", path):  # it becomes part of a stage's command
            raise Invalid(
                "params-data-name", f"{path!r} must consist of letters, digits, '.', '_', '-' and '/': rename it"
            )
        return path

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in sources.names():
            raise Invalid("params-unknown-format", f"there is no format {name!r}{nearest(name, sources.names())}")
        return name

    @model_validator(mode="after")
    def _options(self) -> Data:
        options(sources.source(self.format), self.options, "data.options")
        return self


class Schema(Section):
    """The columns: features, the target, and those that are kept for slices."""

    features: Annotated[dict[str, Options], Field(min_length=1)]
    target: Annotated[dict[str, Options], Field(min_length=1, max_length=1)]
    keep: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, tree: Any) -> Any:
        """`name: kind` is short for `name: {kind: kind}`."""
        if not isinstance(tree, dict):
            return tree
        return {
            role: {name: {"kind": value} if isinstance(value, str) else value for name, value in columns.items()}
            if isinstance(columns, dict)
            else columns
            for role, columns in tree.items()
        }

    @model_validator(mode="after")
    def _kinds(self) -> Schema:
        self.unfitted().groups()
        names = [*self.features, *self.target, *self.keep]
        for name in names:
            if name.startswith("_"):
                raise Invalid(
                    "params-reserved-column",
                    f"the column name {name!r} begins with an underscore, reserved for the table's own columns",
                )
            if name in self.keep and names.count(name) > 1:
                raise Invalid(
                    "params-repeated-column",
                    f"schema.keep: the column {name!r} is listed twice, or is a feature or the target",
                )
            if names.count(name) > 1:
                raise Invalid("params-repeated-column", f"the column {name!r} is both a feature and the target")
            if name in schema.IDENTIFIERS:
                raise Invalid(
                    "params-reserved-column", f"{name!r} is an output of every served model: rename that column"
                )
            parent = next((other for other in names if name.startswith(f"{other}.")), None)
            if parent is not None:
                raise Invalid(
                    "params-reserved-column", f"the column name {name!r} looks like a fact about {parent!r}: rename it"
                )
        return self

    def unfitted(self) -> schema.Schema:
        """The schema as declared, with nothing fitted."""
        return declared(self.features, self.target)


class Validate(Section):
    """What the table must be."""

    min_rows: Annotated[int, Field(ge=0)]
    max_quarantined: Share
    max_rejected: Share
    warn_leakage: Share
    max_leakage: Share | Literal["none"]
    columns: dict[str, Options]


class Model(Section):
    """The network's parts, and the weights that it starts from."""

    encoders: dict[str, Options]
    trunk: Options
    head: Options
    init_from: str
    init_sha256: str
    name_map: dict[str, str]
    freeze_encoders: bool


class Train(Section):
    """How the network is trained."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    epochs: Positive
    batch_size: Positive
    optimizer: Literal["sgd", "momentum", "nesterov", "adam", "adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    schedule: Literal["constant", "cosine", "one_cycle"]
    warmup_epochs: Annotated[float, Field(ge=0)]
    l1: Annotated[float, Field(ge=0)]
    l2: Annotated[float, Field(ge=0)]
    clip_norm: Annotated[float, Field(ge=0)]
    accumulate: Positive
    augment: dict[str, Options]
    patience: Annotated[int, Field(ge=0)]
    average: Annotated[float, Field(ge=0, lt=1)]
    precision: Literal["32", "bf16-mixed", "16-mixed"]
    threads: Positive
    arithmetic: Literal["portable", "native"]
    accelerator: Literal["cpu", "gpu", "auto"]
    devices: Positive
    strategy: Literal["auto", "ddp", "fsdp"]
    num_nodes: Positive
    debug: Literal["none", "fast", "overfit"]

    @model_validator(mode="after")
    def _even(self) -> Train:
        processes = self.devices * self.num_nodes
        if self.batch_size % processes:
            raise Invalid(
                "params-uneven-batch", f"batch_size {self.batch_size} does not divide among {processes} devices"
            )
        return self


class Export(Section):
    """How the model is served."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
    max_batch: Positive
    instances: Positive
    threads: Positive


class Measure(Section):
    """How latency is measured."""

    requests: Annotated[int, Field(ge=10)]
    clients: Positive


class Canary(Section):
    """`requests`: how many both releases must answer. With fewer after `minutes`, the new release is withdrawn."""

    requests: Positive
    minutes: Annotated[float, Field(gt=0)]
    max_failures: Share
    max_latency_ratio: Annotated[float, Field(gt=0)]
    max_disagreement: Share


class Serve(Section):
    """How releases are kept and watched."""

    keep: Annotated[int, Field(ge=2)]
    probe_s: Annotated[float, Field(gt=0)]
    probe_timeout_s: Annotated[float, Field(gt=0)]
    canary: Canary


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """The whole file."""

    data: Data
    schema: Schema
    validate: Validate
    split: Split
    model: Model
    train: Train
    export: Export
    measure: Measure
    gate: Gate
    serve: Serve

    @model_validator(mode="after")
    def _columns(self) -> Params:
        declared = self.schema.unfitted()
        columns = {column.name: column for column in (*declared.features, declared.target)}
        expected = self.validate.columns
        for name in expected:
            if name not in columns:
                raise Invalid(
                    "params-unknown-column", f"validate.columns.{name}: there is no such column{nearest(name, columns)}"
                )
        for name, column in columns.items():
            _no_other_kinds(column, expected.get(name, {}))
            options(expectations.of(column.kind), expected.get(name, {}), f"validate.columns.{name}")
        _changes(declared, self.gate.robustness)
        described = distributions.described(declared)
        for name in self.gate.drift.columns:
            if name not in described:
                raise Invalid(
                    "params-unknown-column",
                    f"gate.drift.columns.{name}: no statistics are kept of it{nearest(name, described)}",
                )
        known = [
            *sliceable(declared),
            *self.schema.keep,
            *(["folder"] if self.data.format not in sources.TABLES else []),
        ]
        for by in self.gate.slices:
            if by not in known:
                raise Invalid(
                    "params-unknown-column", f"gate.slices.{by}: there is no such column or fact{nearest(by, known)}"
                )
        if self.split.by == "strata" and not hasattr(schema.target_kind(declared.target.kind), "strata"):
            raise Invalid(
                "params-no-strata", f"split.by: the kind of the target {declared.target.name!r} has no strata: use hash"
            )
        return self


def sliceable(declared: schema.Schema) -> list[str]:
    """The columns of the table that test rows may be sliced by: those without bytes, and facts."""
    by_name = {column.name: schema.kind(column.kind) for column in declared.features}
    facts = [f"{name}.{fact}" for name, module in by_name.items() for fact in module.facts(())]
    return [*(name for name, module in by_name.items() if module.RAW != "bytes"), declared.target.name, *facts]


def feature_kinds() -> list[str]:
    """The kinds of features."""
    return [name for name in modules(kinds) if not name.startswith("target_")]


def target_kinds() -> list[str]:
    """The kinds of targets, without their prefix."""
    return [name.removeprefix("target_") for name in modules(kinds) if name.startswith("target_")]


def declared(features: dict[str, Options], target: dict[str, Options]) -> schema.Schema:
    """The columns as `schema:` declares them, before anything is fitted.

    Raises:
        ValueError: a kind or option is unknown; the message names the nearest.
    """
    ((name, declaration),) = target.items()
    columns = tuple(_column(name, declaration, f"schema.features.{name}", "") for name, declaration in features.items())
    return schema.Schema(columns, _column(name, declaration, f"schema.target.{name}", "target_"))


def options(module: Any, values: dict[str, Any], key: str) -> Any:
    """The module's `Options` with these values; `key` is where params.yaml has them.

    Raises:
        ValueError: a name is unknown (the message names the nearest), a type is wrong, or a value is out of range.
    """
    unknown = [name for name in values if name not in _names(module)]
    if unknown:
        names = [field.name for field in fields(module.Options)]
        raise Invalid("params-unknown-key", f"{key}.{unknown[0]} is unknown{nearest(unknown[0], names)}")
    try:
        return TypeAdapter(module.Options).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first, *others = (explain(fault, key) for fault in error.errors())
        raise Invalid(first.code, "; ".join(map(str, (first, *others)))) from error


def explain(fault: Any, within: str = "") -> Invalid:
    """One of pydantic's errors as one about a key, which may be `within` another."""
    key = ".".join(str(part) for part in (*([within] if within else []), *fault["loc"]))
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        hint = nearest(str(fault["loc"][-1]), _siblings(fault["loc"][:-1]))
        return Invalid("params-unknown-key", f"{key} is unknown{hint}")
    if fault["type"] == "missing":
        choices = _annotation(fault["loc"])
        hint = f": set it to {' or '.join(get_args(choices))}" if get_origin(choices) is Literal else ""
        return Invalid("params-missing-key", f"{key} is missing{hint}")
    text = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("model_type", "model_attributes_type"):
        text = f"give keys, such as {', '.join(_siblings(fault['loc'])[:4])}"
    given = "" if fault["type"] == "value_error" else f" (it is {fault['input']!r})"
    sentence = text if not key or text.startswith(f"{key}.") else f"{key}: {text}{given}"
    cause = fault.get("ctx", {}).get("error")
    return Invalid(cause.code, sentence) if isinstance(cause, Invalid) else invalid(fault["type"], sentence)


def _no_other_kinds(column: schema.Column, values: dict[str, Any]) -> None:
    """Raise ValueError for an expectation that only columns of another kind have."""
    kinds = [*feature_kinds(), *(f"target_{name}" for name in target_kinds())]
    for option in (option for option in values if option not in _names(expectations.of(column.kind))):
        if other_kinds := {kind.removeprefix("target_") for kind in kinds if option in _names(expectations.of(kind))}:
            kind = column.kind.removeprefix("target_")
            reason = f"is for {', '.join(sorted(other_kinds))}, and {column.name} is of kind {kind}"
            remedy = "delete it, and adapt gate.thresholds if the target's kind was changed"
            raise Invalid("params-other-kind", f"validate.columns.{column.name}.{option} {reason}: {remedy}")


def _changes(declared: schema.Schema, limits: dict[str, dict[str, Change]]) -> None:
    """Raise ValueError for a change that these columns' kinds do not have, or of a size out of range."""
    kinds = {name: name for name in feature_kinds()} | {column.name: column.kind for column in declared.features}
    for key, changes in limits.items():
        if key not in kinds:
            raise Invalid(
                "params-unknown-column", f"gate.robustness.{key}: there is no such column or kind{nearest(key, kinds)}"
            )
        known = perturbations.of(kinds[key])
        for name, change in changes.items():
            where = f"gate.robustness.{key}.{name}"
            if name not in known:
                raise Invalid("params-unknown-perturbation", f"{where}: unknown perturbation{nearest(name, known)}")
            most = known[name].most
            if change.by and not most:
                raise Invalid("params-perturbation-size", f"{where}.by: this perturbation has no size: delete it")
            if most and not 0 < change.by <= most:
                raise Invalid(
                    "params-perturbation-size", f"{where}.by must be above 0 and at most {most:g}, not {change.by:g}"
                )


def _names(module: Any) -> set[str]:
    return {option.name for option in fields(module.Options)}


def _siblings(loc: tuple[Any, ...]) -> list[str]:
    """The keys that a section at a path of keys may have."""
    return list(_keys(_annotation(loc)))


def _annotation(loc: tuple[Any, ...]) -> Any:
    """The type of the value at a path of keys."""
    here: Any = Params
    for part in loc:
        here = get_args(here)[1] if get_origin(here) is dict else _keys(here).get(str(part))
    return here


def _keys(model: Any) -> dict[str, Any]:
    """The keys of a section -> the type of each."""
    return {name: field.annotation for name, field in getattr(model, "__pydantic_fields__", {}).items()}


def _column(name: str, declaration: dict[str, Any], key: str, prefix: str) -> schema.Column:
    known = target_kinds() if prefix else feature_kinds()
    if "kind" not in declaration:
        raise Invalid("params-missing-key", f"{key}.kind is missing: write `{name}: KIND`, one of {', '.join(known)}")
    if declaration["kind"] not in known:
        raise Invalid(
            "params-unknown-kind",
            f"{key}.kind: there is no kind {declaration['kind']!r}{nearest(str(declaration['kind']), known)}",
        )
    kind = prefix + declaration["kind"]
    chosen = {option: value for option, value in declaration.items() if option != "kind"}
    protocol: Any = schema.Target if prefix else schema.Kind
    module = load_module(f"stages.schema.kinds.{kind}", protocol)
    views.of(kind)
    options(module, chosen, key)
    return schema.Column(name, kind, chosen)
