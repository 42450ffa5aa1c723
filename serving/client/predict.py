"""`millrace predict`: many rows through one client, a few requests at a time; answers to a file or to the terminal."""

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

from serving.client import AccessDenied, Answer, AsyncClient, Served, ServerError, TlsError, Unavailable, inputs
from serving.client.model_info import flat
from serving.client.question import in_order_async
from stages.core import command
from stages.core.errors import Misuse, UserError
from stages.settings import sections
from stages.tables import sources

ENDINGS = (".csv", ".parquet", ".jsonl")
RETRY_S = 20.0
GROUP_ROWS = 8192  # of a Parquet file's row group

Write = Callable[[Answer], None]


def written_as(format: str, options: dict[str, Any]) -> inputs.Written:
    """How a project's tables are written, as its params.yaml has it.

    Raises:
        UserError: `options` are none of that format.
    """
    return inputs.Written(format, sections.options(sources.source(format), options, "data.options"))


def answer(
    values: Sequence[str], client: AsyncClient, written: inputs.Written, output: Path | None, probabilities: bool
) -> bool:
    """Ask for every row of `values`, and write to `output` or print; whether all rows could be answered.

    Raises:
        UserError: the server does not answer, or `values` or `output` are none.
    """
    if output is not None and output.suffix not in ENDINGS:
        raise Misuse(f"--output {output} must end in {', '.join(ENDINGS)}")
    try:
        return asyncio.run(_answer(values, client, written, output, probabilities))
    except Unavailable as error:
        raise UserError(f"{error}: `millrace serve` starts one and prints its address") from error
    except TimeoutError as error:
        raise UserError(f"{error}: give it longer with --timeout-s") from error
    except (ServerError, TlsError, AccessDenied) as error:
        raise UserError(str(error)) from error


async def _answer(
    values: Sequence[str], client: AsyncClient, written: inputs.Written, output: Path | None, probabilities: bool
) -> bool:
    done, faulty = 0, False
    async with client:
        served = await client.describe()  # as patient as `client`: somebody waits at a terminal
        client.retry_s = RETRY_S  # a restart in the middle of a long table is worth more
        rows = inputs.rows(values, served, written)
        with _writing(output, _cells(served, probabilities)) as write, _counting(output) as count:
            batches = _batches(rows, max(1, served.max_batch))
            async for answers in in_order_async(batches, lambda batch: _of_batch(client, batch, probabilities)):
                for one in answers:
                    if "error" in one:
                        faulty = True
                        print(f"error: {one['input']}: {one['error']}", file=sys.stderr)
                    write(one)
                count(len(answers))
                done += len(answers)
            if not done:
                raise UserError(f"{', '.join(values)}: there is no row to ask about")
    return not faulty


async def _batches(rows: Iterator[inputs.Asked], most: int) -> AsyncIterator[list[inputs.Asked]]:
    while batch := list(itertools.islice(rows, most)):
        yield batch


async def _of_batch(client: AsyncClient, batch: list[inputs.Asked], probabilities: bool) -> list[Answer]:
    """For each row `input` and its answer, or `input` and `error`."""
    served = await client.describe()
    answers: list[Answer] = []
    sound: list[dict[str, Any]] = []
    for place, row, fault in batch:
        answers.append({"input": place})
        try:
            if fault:
                raise ValueError(fault)
            sound.append(served.raw(row))
        except ValueError as error:
            answers[-1]["error"] = str(error)
    told = iter(await _told(client, sound, probabilities) if sound else [])
    return [one if "error" in one else one | next(told) for one in answers]


async def _told(client: AsyncClient, rows: list[dict[str, Any]], probabilities: bool) -> list[Answer]:
    """Answers; where the server refuses a request, it is halved until the rows at fault are alone."""
    try:
        return await client.ask({name: [row[name] for row in rows] for name in rows[0]}, probabilities=probabilities)
    except ValueError as error:
        if len(rows) == 1:
            return [{"error": str(error)}]
    half = len(rows) // 2
    return [
        *await _told(client, rows[:half], probabilities),
        *await _told(client, rows[half:], probabilities),
    ]


def _cells(served: Served, probabilities: bool) -> dict[str, type[Any]]:
    """The columns of a table of answers, and what they hold."""
    blank = {name: np.zeros((1, *tensor.shape), tensor.dtype) for name, tensor in served.outputs.items()}
    (example,) = served.answers(blank | {"answer_id": np.array([""])}, probabilities)
    return {"input": str} | {name: type(value) for name, value in flat(example).items()} | {"error": str}


def _counting(output: Path | None) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    """Progress, unless the answers themselves show it."""
    return contextlib.nullcontext(lambda more: None) if output is None else command.counting("rows")


@contextlib.contextmanager
def _writing(output: Path | None, cells: dict[str, type]) -> Iterator[Write]:
    """What takes one answer after another; a file is there as a whole or not at all."""
    if output is None:
        yield _print
        return
    with command.replacing(output) as whole, _WRITERS[output.suffix](whole, cells) as write:
        yield write


def _print(answer: Answer) -> None:
    if "error" not in answer:
        print(json.dumps(answer, ensure_ascii=False), flush=True)


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

    schema = pa.schema({name: pa.float64() if held is float else pa.string() for name, held in cells.items()})
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
