"""What a server says of a model, and what follows from it: which rows it takes, and what its outputs mean."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from serving.client.errors import RowError, ServerError
from stages.schema import Kind, Schema, Tensor, kind, target_kind

Answer = dict[str, Any]  # label and probability, or value, low and high, as the target's kind says; its identifiers
Row = Mapping[str, Any]  # {column: a value as people hold it}
Raw = dict[str, list[Any]]  # {column: [n] as the table stores them}
Outputs = dict[str, np.ndarray]  # {name: [n, *shape]}


class Frame(Protocol):
    """What types know of a pandas data frame, which has none of its own."""

    @property
    def columns(self) -> Any: ...
    @property
    def index(self) -> Any: ...


AnyFrame = TypeVar("AnyFrame", bound=Frame)


@dataclass(frozen=True)
class Served:
    """A model as its server describes it."""

    schema: Schema  # with nothing fitted to the features
    max_batch: int  # rows in one request
    candidate: str  # NAME_<id>, its name for ever

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Served:
        """From a model's configuration as JSON.

        Raises:
            ServerError: it is none that millrace has exported, or it has a kind of data that is not known here.
        """
        try:
            schema = Schema.parse(config["parameters"]["schema"]["string_value"])
            encode = config["ensemble_scheduling"]["step"][0]["model_name"]
            live = config["parameters"].get("live", {"string_value": encode.removesuffix("_encode")})  # during a canary
            served = cls(schema, int(config["max_batch_size"]), live["string_value"])
            served.inputs, served.outputs  # noqa: B018  (finds the modules of all kinds)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            name = config.get("name")
            raise ServerError(f"the model {name!r} does not say what its columns are: it is none of ours") from error
        except ModuleNotFoundError as error:
            raise ServerError(f"the model {config.get('name')!r} needs {error.name}, which is not here") from error
        return served

    @property
    def release(self) -> str:
        """The id that comes with every answer."""
        return self.candidate.rpartition("_")[2]

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """By column."""
        return self.schema.inputs()

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """By name, without those that identify an answer."""
        return self.schema.outputs()

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {column.name: kind(column.kind) for column in self.schema.features}

    def raw(self, row: Row) -> dict[str, Any]:
        """One row as people hold it -> as the table stores it, every column in it; what is missing is None.

        Raises:
            RowError: a column is unknown (the nearest is named) or missing, or its kind cannot take the value.
        """
        for name in row:
            if name not in self._kinds and name != self.schema.target.name:  # who knows the answer may leave it in
                raise RowError(f"unknown column {name!r}: {self.nearest(name)}", str(name))
        return {name: self._cell(name, module, row) for name, module in self._kinds.items()}

    def answers(self, outputs: Outputs, probabilities: bool = False) -> list[Answer]:
        """Outputs as arrays -> an answer for each row; with `probabilities`, that of each label as well."""
        answers = target_kind(self.schema.target.kind).predictions(outputs, self.schema.target.fitted)
        for row, answer in enumerate(answers):
            for name, tensor in self.outputs.items():
                if tensor.labels and probabilities:
                    answer[name] = dict(zip(tensor.labels, outputs[name][row].tolist(), strict=True))
            answer["release"] = self.release
            if "answer_id" in outputs:  # releases made by earlier versions have none
                answer["answer_id"] = str(outputs["answer_id"][row])
        return answers

    def nearest(self, name: object) -> str:
        """A hint for a column that is not there."""
        close = difflib.get_close_matches(str(name), self._kinds, n=1)
        return f"did you mean {close[0]!r}?" if close else f"this model takes {', '.join(self._kinds)}"

    def _cell(self, name: str, module: Kind, row: Row) -> Any:
        raw = None
        if name in row:
            value = row[name]
            try:
                several = isinstance(value, (list, tuple, dict, set))
                if several or (module.RAW != "bytes" and getattr(value, "ndim", False)):
                    raise ValueError(f"a {type(value).__name__} is no single value")
                raw = module.raw(_content(value) if module.RAW == "bytes" else value)
                if isinstance(raw, str):
                    raw.encode()  # half a surrogate pair cannot travel
            except (ValueError, TypeError, OSError) as error:
                reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
                raise RowError(reason, name) from error
        if raw is None and not module.OPTIONAL:
            raise RowError(f"the column {name!r} is missing", name)
        return raw


def _content(value: Any) -> Any:
    """What is in an open file; any other value as it is.

    Raises:
        ValueError: it is open as text, or has been read to its end.
    """
    if isinstance(value, io.BytesIO):
        return value.getvalue()  # wherever it was left by who has written it
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not hasattr(value, "read"):
        return value
    content = value.read()
    if isinstance(content, str):
        raise ValueError("a file open as text: open it with mode 'rb'")
    if not content:
        raise ValueError("an open file without a byte left to read")
    return content


def flat(answer: Answer) -> Answer:
    """An answer as cells of a table: `probabilities` of several labels become a `probabilities[LABEL]` each."""
    cells: Answer = {}
    for name, value in answer.items():
        cells |= {f"{name}[{key}]": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return cells
