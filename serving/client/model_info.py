"""A server's description of a model: which rows the model takes, and what its outputs mean."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from serving.client.errors import RowError, ServerError
from stages.schema import Kind, Schema, Tensor, Vocabulary, kind, target_kind

UNKNOWN_WORDS = "unknown_words"  # the key of an answer's count of them by column, if it has any
Answer = dict[str, Any]  # the target kind's keys, such as label and probability, and the identifiers
Row = Mapping[str, Any]  # {column: a plain Python value}
Raw = dict[str, list[Any]]  # {column: [n], as the table stores the values}
Outputs = dict[str, np.ndarray]  # {name: [n, *shape]}


class Frame(Protocol):
    """The type of a pandas data frame, which has no type hints of its own."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""

    @property
    def index(self) -> Any:
        """The labels of the rows."""


AnyFrame = TypeVar("AnyFrame", bound=Frame)


@dataclass(frozen=True)
class Served:
    """A served model, as its server describes it."""

    schema: Schema  # without what was fitted to the features
    max_batch: int  # largest number of rows in a request
    candidate: str  # NAME_<id>, the name of its release

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Served:
        """Read a model's configuration in JSON.

        Raises:
            ServerError: the model was not exported by millrace, or a kind of its columns does not exist here.
        """
        try:
            schema = Schema.parse(config["parameters"]["schema"]["string_value"])
            encode = config["ensemble_scheduling"]["step"][0]["model_name"]
            live = config["parameters"].get("live", {"string_value": encode.removesuffix("_encode")})  # during a canary
            served = cls(schema, int(config["max_batch_size"]), live["string_value"])
            served.inputs, served.outputs  # noqa: B018  (finds the modules of all kinds)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            name = config.get("name")
            raise ServerError(
                "server-foreign-model",
                f"the model {name!r} does not describe its columns: millrace has not exported it",
            ) from error
        except ModuleNotFoundError as error:
            raise ServerError(
                "server-unknown-kind",
                f"the model {config.get('name')!r} needs {error.name}, which is missing here: update the client",
            ) from error
        return served

    @property
    def release(self) -> str:
        """The release's id, which every answer has."""
        return self.candidate.rpartition("_")[2]

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """The input tensors, by column."""
        return self.schema.inputs()

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """The output tensors by name, without the identifiers."""
        return self.schema.outputs()

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {column.name: kind(column.kind) for column in self.schema.features}

    def raw(self, row: Row) -> dict[str, Any]:
        """Convert a row to the values that the table stores, for every column; a missing value is None.

        Raises:
            RowError: a column is unknown (the nearest is named) or missing, or its kind cannot take the value.
        """
        for name in row:
            if name not in self._kinds and name != self.schema.target.name:  # a row may include the target
                raise RowError("row-unknown-column", f"unknown column {name!r}: {self.nearest(name)}", str(name))
        return {name: self._cell(name, module, row) for name, module in self._kinds.items()}

    def answers(self, outputs: Outputs, probabilities: bool = False, raw: Raw | None = None) -> list[Answer]:
        """Convert outputs to an answer for each row.

        Args:
            outputs: of the model.
            probabilities: whether an answer has the probability of each class.
            raw: the rows, so that an answer counts the words that the model does not know, if there are any.
        """
        unknown = self.unknown_words(raw) if raw else []
        answers = target_kind(self.schema.target.kind).predictions(outputs, self.schema.target.fitted)
        for row, answer in enumerate(answers):
            for name, tensor in self.outputs.items():
                if tensor.labels and probabilities:
                    answer[name] = dict(zip(tensor.labels, outputs[name][row].tolist(), strict=True))
            answer["release"] = self.release
            if "answer_id" in outputs:  # releases of earlier versions do not have it
                answer["answer_id"] = str(outputs["answer_id"][row])
            if unknown and unknown[row]:
                answer[UNKNOWN_WORDS] = unknown[row]
        return answers

    def unknown_words(self, raw: Raw) -> list[dict[str, int]]:
        """Count the words of each row that the model does not know, by column; {} if it knows all of them."""
        counts: list[dict[str, int]] = [{} for values in [*raw.values()][:1] for _ in values]
        for name, is_unknown in self._vocabularies.items():
            for count, value in zip(counts, raw[name], strict=True):
                if is_unknown(value):
                    count[name] = 1
        return counts

    @cached_property
    def _vocabularies(self) -> dict[str, Callable[[Any], bool]]:
        """Column -> whether the model does not know a value, for the columns of which the server tells that."""
        described = [(column, self._kinds[column.name]) for column in self.schema.features if column.fitted]
        found = {
            column.name: module.unknown(column.fitted) for column, module in described if isinstance(module, Vocabulary)
        }
        return {name: is_unknown for name, is_unknown in found.items() if is_unknown}

    def nearest(self, name: object) -> str:
        """Return a hint for a column that does not exist."""
        close = difflib.get_close_matches(str(name), self._kinds, n=1)
        return f"did you mean {close[0]!r}?" if close else f"this model takes {', '.join(self._kinds)}"

    def _cell(self, name: str, module: Kind, row: Row) -> Any:
        raw = None
        if name in row:
            value = row[name]
            try:
                several = isinstance(value, (list, tuple, dict, set))
                if several or (module.RAW != "bytes" and getattr(value, "ndim", False)):
                    raise ValueError(f"a {type(value).__name__} is not a single value")
                raw = module.raw(_content(value) if module.RAW == "bytes" else value)
                if isinstance(raw, str):
                    raw.encode()  # fails for a lone surrogate, which cannot be sent
            except (ValueError, TypeError, OSError) as error:
                reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
                raise RowError("row-invalid-value", reason, name) from error
        if raw is None and not module.OPTIONAL:
            raise RowError("row-missing-column", f"the column {name!r} is missing", name)
        return raw


def _content(value: Any) -> Any:
    """Read an open file; return any other value as it is.

    Raises:
        ValueError: the file is open as text, or has been read to its end.
    """
    if isinstance(value, io.BytesIO):
        return value.getvalue()  # whatever its position
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not hasattr(value, "read"):
        return value
    content = value.read()
    if isinstance(content, str):
        raise ValueError("the file is open as text: open it with mode 'rb'")
    if not content:
        raise ValueError("the open file has no byte left to read")
    return content


def flat(answer: Answer) -> Answer:
    """Return an answer as cells of a table: the probability of each class becomes `probabilities[CLASS]`.

    A table's columns are the same for all rows, so unknown words are left out.
    """
    cells: Answer = {}
    for name, value in answer.items():
        if name != UNKNOWN_WORDS:
            cells |= (
                {f"{name}[{key}]": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
            )
    return cells
