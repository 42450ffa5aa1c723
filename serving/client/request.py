"""The caller's rows: checked, split into batches of one request each, and answered in the same form and order."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections import Counter, deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from serving.client.errors import RowError
from serving.client.model_info import UNKNOWN_WORDS, Answer, Raw, Row, Served, flat

IN_FLIGHT = 4  # requests of one `predict` that are under way at once
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """The rows of one request, or the error that is raised in their place."""

    first: int  # number of the first row
    raw: Raw
    error: Exception | None = None


def is_stream(rows: Any) -> bool:
    """Whether the number of rows is unknown, so that they are sent as they come."""
    return isinstance(rows, AsyncIterable) or (isinstance(rows, Iterable) and not isinstance(rows, Sized))


class Request:
    """Rows that are all there: a row, several, a data frame or a table. They are checked before any of them is sent.

    Raises:
        RowError: the model cannot take a row.
        ValueError: there is no row.
    """

    def __init__(self, rows: Any, served: Served) -> None:
        pandas = sys.modules.get("pandas")  # whoever has a data frame has imported it
        self._frame = rows if pandas is not None and isinstance(rows, pandas.DataFrame) else None
        self._single = isinstance(rows, Mapping)
        self._places: Sequence[str] = ()  # of the rows in a file, such as "t.csv row 2"
        if isinstance(rows, Mapping):
            all_rows: list[Any] = [rows]
        elif self._frame is not None:
            all_rows = _records(self._frame)
        elif isinstance(rows, (str, Path)):
            self._places, all_rows = _table(Path(rows), served)
        elif isinstance(rows, Iterable):
            all_rows = list(rows)
        else:
            raise ValueError(
                f"give a row {{column: value}}, several rows, a data frame or a table's path, not {rows!r:.40}"
            )
        if not all_rows:
            raise ValueError("there is no row to predict")
        batcher = _Batcher(served, self.with_place)
        self._batches = [*filter(None, map(batcher.add, all_rows)), *batcher.rest()]

    @property
    def batches(self) -> list[Batch]:
        """The batches, in the order of the rows."""
        return self._batches

    def result(self, answers: list[Answer]) -> Any:
        """Return the answers in the form of the rows: one answer, a list or a data frame."""
        if self._frame is not None:
            frame = sys.modules["pandas"].DataFrame([flat(answer) for answer in answers], index=self._frame.index)
            frame.attrs[UNKNOWN_WORDS] = dict(
                Counter(name for answer in answers for name in answer.get(UNKNOWN_WORDS, {}))
            )
            return frame
        return answers[0] if self._single else answers

    def with_place(self, error: RowError, number: int) -> RowError:
        """Return the error of a row with the row's number, and its place in a file."""
        if self._single:
            return error.at(None)
        return error.at(number, self._places[number] if self._places else "")


def located(error: RowError, batch: Batch, with_place: Callable[[RowError, int], RowError]) -> RowError:
    """Find the row and column of the server's error, which numbers the rows of `batch` from 0.

    An error without a number belongs to the only row of its batch; among several rows it is returned as it is.
    """
    text, count = error.reason, len(next(iter(batch.raw.values())))
    match = re.search(r"\brow (\d+)\b:? ?", text)
    if not match and count > 1:
        return error
    number = min(int(match[1]), count - 1) if match else 0
    reason = (text[: match.start()] + text[match.end() :]).strip(" :,") if match else text
    column = next((name for name in batch.raw if reason.startswith((f"{name}: ", f"{name!r}: "))), "")
    if column:
        reason = reason.partition(": ")[2]
    return with_place(RowError(error.code, reason, column), batch.first + number)


def rows_before(batch: Batch, error: RowError) -> Batch | None:
    """The rows of a batch before the one that the server rejects; None if there are none, or the row is unknown."""
    count = 0 if error.row is None or batch.error is not None else error.row - batch.first
    return Batch(batch.first, {name: values[:count] for name, values in batch.raw.items()}) if count > 0 else None


def stream(rows: Iterable[Row], served: Served) -> Iterator[Batch]:
    """Yield batches as rows come. The error of a row, or of the iterator itself, comes after the rows before it."""
    batcher = _Batcher(served, RowError.at)
    try:
        for row in rows:
            if batch := batcher.add(row):
                yield batch
    except Exception as error:
        yield from batcher.rest()
        yield Batch(0, {}, error)
        return
    yield from batcher.rest()


async def stream_async(rows: AsyncIterable[Row] | Iterable[Row], served: Served) -> AsyncIterator[Batch]:
    """Yield batches as `stream` does, also from an asynchronous iterator."""
    if not isinstance(rows, AsyncIterable):
        for batch in stream(rows, served):
            yield batch
        return
    batcher = _Batcher(served, RowError.at)
    failure: list[Batch] = []
    try:
        async for row in rows:
            if full := batcher.add(row):
                yield full
    except Exception as error:
        failure = [Batch(0, {}, error)]
    for batch in [*batcher.rest(), *failure]:
        yield batch


def in_order(items: Iterable[T], submit: Callable[[T], Future[list[Answer]]]) -> Iterator[Answer]:
    """Yield the answers in the order of their items, of which IN_FLIGHT are under way at once."""
    pending: deque[Future[list[Answer]]] = deque()
    try:
        for item in items:
            pending.append(submit(item))
            if len(pending) >= IN_FLIGHT:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


async def in_order_async(
    items: AsyncIterable[T], ask: Callable[[T], Awaitable[list[Answer]]]
) -> AsyncIterator[list[Answer]]:
    """Yield the answers to each item, in the order of the items, of which IN_FLIGHT are under way at once."""
    pending: deque[asyncio.Future[list[Answer]]] = deque()
    try:
        async for item in items:
            pending.append(asyncio.ensure_future(ask(item)))
            await asyncio.sleep(0)  # so that it is sent before more is read
            if len(pending) >= IN_FLIGHT:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*pending, return_exceptions=True)


class _Batcher:
    """Collects checked rows until there are enough for a request."""

    def __init__(self, served: Served, with_place: Callable[[RowError, int], RowError]) -> None:
        self._served, self._with_place = served, with_place
        self._cells: list[dict[str, Any]] = []
        self._first = 0

    def add(self, row: Any) -> Batch | None:
        """Add a row. Returns the batch that is full with it, if one is.

        Raises:
            RowError: the model cannot take the row.
        """
        try:
            if not isinstance(row, Mapping):
                raise RowError("row-not-a-dictionary", f"a row is a dictionary {{column: value}}, not {row!r:.40}")
            self._cells.append(self._served.raw(row))
        except RowError as error:
            raise self._with_place(error, self._first + len(self._cells)) from error.__cause__
        return self._take() if len(self._cells) >= max(1, self._served.max_batch) else None

    def rest(self) -> list[Batch]:
        """Return the last batch, if any rows are left."""
        return [self._take()] if self._cells else []

    def _take(self) -> Batch:
        raw = {name: [row[name] for row in self._cells] for name in self._served.inputs}
        batch = Batch(self._first, raw)
        self._first, self._cells = self._first + len(self._cells), []
        return batch


def _table(path: Path, served: Served) -> tuple[list[str], list[Row]]:
    try:
        from serving.client import inputs
    except ModuleNotFoundError as error:
        raise ImportError(f"{path}: {error.name} reads tables, and is not installed here") from error
    return inputs.valid_rows(path, served)


def _records(frame: Any) -> list[Row]:
    if not frame.columns.is_unique:
        raise ValueError("two columns of the data frame have the same name")
    records: list[Row] = frame.astype(object).where(frame.notna(), None).to_dict("records")  # NA and NaT become None
    return records
