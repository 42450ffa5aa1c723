"""`millrace predict`: send many rows through one client, a few requests at a time, and write or print the answers."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import itertools
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.client import (
    AccessDenied,
    Answer,
    AsyncClient,
    RowError,
    Served,
    ServerError,
    TlsError,
    Unavailable,
    inputs,
)
from serving.client.model_info import flat
from serving.client.request import in_order_async
from serving.client.unknown_words import UnknownWords
from stages.core.errors import Misuse, UserError
from stages.core.files import replacing
from stages.core.progress import counting
from stages.settings import sections
from stages.tables import sources

ENDINGS = (".csv", ".parquet", ".jsonl")
RETRY_S = 20.0
GROUP_ROWS = 8192  # rows in a Parquet file's row group

Write = Callable[[Answer], None]


def table_format(format: str, options: dict[str, Any]) -> inputs.TableFormat:
    """Return how a project's tables are written. `format`, `options`: params.yaml's `data.format` and `data.options`.

    Raises:
        UserError: `options` are not those of the format.
    """
    return inputs.TableFormat(format, sections.options(sources.source(format), options, "data.options"))


def answer(
    values: Sequence[str],
    client: AsyncClient,
    table_format: inputs.TableFormat,
    output: Path | None,
    probabilities: bool,
) -> bool:
    """Predict every row of `values`, and write the answers to `output`, or print them.

    Returns:
        Whether all rows were answered.

    Raises:
        UserError: the server does not answer, or `values` or `output` cannot be used.
    """
    if output is not None and not output.parent.is_dir():
        raise Misuse("predict-no-folder", f"--output {output}: there is no folder {output.parent}: make it first")
    if output is not None and any(
        Path(value).exists() and Path(value).samefile(output) for value in values if output.exists()
    ):
        raise Misuse(
            "predict-overwrites-input",
            f"--output {output} is one of the inputs, which it would replace: name another file",
        )
    if "" in values:
        raise Misuse(
            "predict-empty-input",
            "an input is empty, such as an unset variable of a shell: name a file, a folder or a value",
        )
    if output is not None and output.suffix not in ENDINGS:
        raise Misuse("predict-unknown-ending", f"--output {output} must end in {', '.join(ENDINGS)}")
    try:
        return asyncio.run(_answer(values, client, table_format, output, probabilities))
    except Unavailable as error:
        raise UserError(error.code, f"{error}: `millrace serve` starts a server and prints its address") from error
    except TimeoutError as error:
        raise UserError("server-timeout", f"{error}: give it more time with --timeout-s") from error
    except (ServerError, TlsError, AccessDenied) as error:
        raise UserError(error.code, str(error)) from error


async def _answer(
    values: Sequence[str],
    client: AsyncClient,
    table_format: inputs.TableFormat,
    output: Path | None,
    probabilities: bool,
) -> bool:
    count, failed, words = 0, False, UnknownWords()
    async with client:
        served = await client.describe()  # with the client's own retry_s: somebody waits at a terminal
        client.retry_s = RETRY_S  # longer, so that a restart does not interrupt a long table
        rows = inputs.rows(values, served, table_format)
        with _writing(output, _cells(served, probabilities)) as write, _progress(output) as progress:
            batches = _batches(rows, max(1, served.max_batch))
            async for answers in in_order_async(batches, lambda batch: _of_batch(client, batch, probabilities, words)):
                for row_answer in answers:
                    if "error" in row_answer:
                        failed = True
                        fault = row_answer["error"]
                        print(UserError(fault.code, f"{row_answer['input']}: {fault}").line, file=sys.stderr)
                        row_answer["error"] = str(fault)
                    write(row_answer)
                progress(len(answers))
                count += len(answers)
            if not count:
                raise UserError("predict-no-row", f"{', '.join(values)}: there is no row to predict")
    for warning in words.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    return not failed


async def _batches(rows: Iterator[inputs.Input], size: int) -> AsyncIterator[list[inputs.Input]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch


async def _of_batch(
    client: AsyncClient, batch: list[inputs.Input], probabilities: bool, words: UnknownWords
) -> list[Answer]:
    """Return for each row its `input` with its answer, or with a RowError as its `error`; count its `words`."""
    served = await client.describe()
    answers: list[Answer] = []
    valid: list[dict[str, Any]] = []
    for place, row, fault in batch:
        answers.append({"input": place})
        try:
            if fault:
                raise RowError("row-unreadable", fault)
            valid.append(served.raw(row))
        except RowError as error:
            answers[-1]["error"] = error
    predicted = await _predict(client, valid, probabilities) if valid else []
    for row, prediction in zip(valid, predicted, strict=True):
        words.add(row, prediction)
    predictions = iter(predicted)
    return [answer if "error" in answer else answer | next(predictions) for answer in answers]


async def _predict(client: AsyncClient, rows: list[dict[str, Any]], probabilities: bool) -> list[Answer]:
    """Predict rows in one request. Where the server rejects it, its halves are sent, down to the rows at fault."""
    try:
        return await client.ask({name: [row[name] for row in rows] for name in rows[0]}, probabilities=probabilities)
    except RowError as error:
        if len(rows) == 1:
            return [{"error": error}]
    half = len(rows) // 2
    return [*await _predict(client, rows[:half], probabilities), *await _predict(client, rows[half:], probabilities)]


def _cells(served: Served, probabilities: bool) -> dict[str, type[Any]]:
    """Return the columns of a table of answers and their types."""
    blank = {name: np.zeros((1, *tensor.shape), tensor.dtype) for name, tensor in served.outputs.items()}
    (example,) = served.answers(blank | {"answer_id": np.array([""])}, probabilities)
    return {"input": str} | {name: type(value) for name, value in flat(example).items()} | {"error": str}


def _progress(output: Path | None) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    """Show progress, unless the printed answers show it."""
    return contextlib.nullcontext(lambda more: None) if output is None else counting("rows")


@contextlib.contextmanager
def _writing(output: Path | None, cells: dict[str, type]) -> Iterator[Write]:
    """Yield the function that writes an answer. A file appears only when it is complete."""
    if output is None:
        yield _print
        return
    with replacing(output) as path, _WRITERS[output.suffix](path, cells) as write:
        yield write


def _print(answer: Answer) -> None:
    if "error" not in answer:
        print(json.dumps(answer, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"), flush=True)


@contextlib.contextmanager
def _json_lines(path: Path, cells: dict[str, type]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield lambda answer: print(json.dumps(answer, ensure_ascii=False), file=file)


@contextlib.contextmanager
def _csv(path: Path, cells: dict[str, type]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.DictWriter(file, list(cells), lineterminator="\n")
        rows.writeheader()
        yield lambda answer: rows.writerow(flat(answer))


@contextlib.contextmanager
def _parquet(path: Path, cells: dict[str, type]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({name: pa.float64() if type is float else pa.string() for name, type in cells.items()})
    group: list[Answer] = []

    def flush() -> None:
        if group:
            rows.write_table(pa.Table.from_pylist(group, schema))
            group.clear()

    def write(answer: Answer) -> None:
        group.append(flat(answer))
        if len(group) >= GROUP_ROWS:
            flush()

    with pq.ParquetWriter(path, schema) as rows:
        yield write
        flush()


_WRITERS = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines}
