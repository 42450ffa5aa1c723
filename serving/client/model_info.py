"""What a server says of a model, and what follows from it: which rows it takes, and what its outputs mean."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stages.schema import Kind, Schema, Tensor, kind, target_kind

Answer = dict[str, Any]  # label and probability, or value, low and high, as the target's kind says; its identifiers
Row = Mapping[str, Any]  # {column: a value as people hold it}
Raw = dict[str, list[Any]]  # {column: [n] as the table stores them}
Outputs = dict[str, np.ndarray]  # {name: [n, *shape]}


class ServerError(RuntimeError):
    """The server answers, but not with what was asked of it: it lacks the model, or has failed."""


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
            ValueError: a column is unknown (the nearest is named) or missing, or its kind cannot take the value.
        """
        for name in row:
            if name not in self._kinds and name != self.schema.target.name:  # who knows the answer may leave it in
                raise ValueError(f"unknown column {name!r}: {self.nearest(name)}")
        return {name: self._cell(name, module, row) for name, module in self._kinds.items()}

    def answers(self, outputs: Outputs, probabilities: bool = False) -> list[Answer]:
        """Outputs as arrays -> an answer for each row; with `probabilities`, that of each label as well."""
        answers = target_kind(self.schema.target.kind).answers(outputs, self.schema.target.fitted)
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
                raw = module.raw(value)
                if isinstance(raw, str):
                    raw.encode()  # half a surrogate pair cannot travel
            except (ValueError, TypeError, OSError) as error:
                reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
                raise ValueError(reason if len(self._kinds) == 1 else f"{name}: {reason}") from error
        if raw is None and not module.OPTIONAL:
            raise ValueError(f"the column {name!r} is missing")
        return raw


class Question:
    """What somebody asks, checked as a whole before any of it is sent; its answers come in the same form.

    Raises:
        ValueError: there is no row, or one that cannot be asked; it is named by its number, from 0, or its place.
    """

    def __init__(self, rows: Any, served: Served) -> None:
        pandas = sys.modules.get("pandas")  # who has a frame has loaded it
        self._frame = rows if pandas is not None and isinstance(rows, pandas.DataFrame) else None
        self._single = isinstance(rows, Mapping)
        self._places: Sequence[str] = ()  # of the rows, where they lie in a file
        if isinstance(rows, Mapping):
            given: list[Any] = [rows]
        elif self._frame is not None:
            given = _records(self._frame)
        elif isinstance(rows, (str, Path)):
            from serving.client import inputs

            self._places, given = inputs.whole(Path(rows), served)
        else:
            given = list(rows)
        if not given:
            raise ValueError("there is no row to ask about")
        cells = [self._checked(number, row, served) for number, row in enumerate(given)]
        self._raw: Raw = {name: [row[name] for row in cells] for name in served.inputs}
        self._count, self._most = len(cells), max(1, served.max_batch)

    def batches(self) -> Iterator[tuple[int, Raw]]:
        """Rows for one request, and the number of the first of them."""
        for first in range(0, self._count, self._most):
            yield first, {name: values[first : first + self._most] for name, values in self._raw.items()}

    def answered(self, answers: list[Answer]) -> Any:
        """An answer, a list of them or a frame, as was asked."""
        if self._frame is not None:
            return sys.modules["pandas"].DataFrame([flat(answer) for answer in answers], index=self._frame.index)
        return answers[0] if self._single else answers

    def blamed(self, error: ValueError, first: int, raw: Raw) -> ValueError:
        """What the server says of one of the rows `raw`; to it the `first` is row 0, and one alone has no number."""
        found = re.search(r"\brow (\d+): (.*)", str(error), re.DOTALL)
        number, said = (int(found[1]), found[2]) if found else (0, str(error))
        several = len(next(iter(raw.values()))) > 1
        if self._single or (several and not found):
            return error
        return ValueError(f"{self._place(first + number)}: {said}")

    def _checked(self, number: int, row: Any, served: Served) -> dict[str, Any]:
        try:
            if not isinstance(row, Mapping):
                raise ValueError(f"a row is a dictionary {{column: value}}, not {row!r:.40}")
            return served.raw(row)
        except ValueError as error:
            if self._single:
                raise
            raise ValueError(f"{self._place(number)}: {error}") from error

    def _place(self, number: int) -> str:
        return self._places[number] if self._places else f"row {number}"


def flat(answer: Answer) -> Answer:
    """An answer as cells of a table: `probabilities` of several labels become a `probabilities[LABEL]` each."""
    cells: Answer = {}
    for name, value in answer.items():
        cells |= {f"{name}[{key}]": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return cells


def _records(frame: Any) -> list[Row]:
    if not frame.columns.is_unique:
        raise ValueError("two columns of the data frame have one name")
    known: list[Row] = frame.astype(object).where(frame.notna(), None).to_dict("records")  # NA and NaT are missing, too
    return known
