"""What a caller asks with: checked, cut into requests, and answered in the same form and order."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections import deque
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
from serving.client.model_info import Answer, Raw, Row, Served, flat

IN_FLIGHT = 4  # requests of one `predict` that are under way
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Rows for one request, or the error that comes in their place."""

    first: int  # number of the first row
    raw: Raw
    error: Exception | None = None


def is_stream(rows: Any) -> bool:
    """Whether nobody knows how many rows will come: they are asked for as they do."""
    return isinstance(rows, AsyncIterable) or (isinstance(rows, Iterable) and not isinstance(rows, Sized))


class Question:
    """Rows that are all there, checked before any of them is sent.

    Raises:
        RowError: a row cannot be asked.
        ValueError: there is none.
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
            self._places, given = _table(Path(rows), served)
        else:
            given = list(rows)
        if not given:
            raise ValueError("there is no row to ask about")
        waiting = _Waiting(served, self.placed)
        self._batches = [*filter(None, map(waiting.add, given)), *waiting.rest()]

    @property
    def batches(self) -> list[Batch]:
        """In the order of the rows."""
        return self._batches

    def answered(self, answers: list[Answer]) -> Any:
        """An answer, a list of them or a frame, as was asked."""
        if self._frame is not None:
            return sys.modules["pandas"].DataFrame([flat(answer) for answer in answers], index=self._frame.index)
        return answers[0] if self._single else answers

    def placed(self, error: RowError, number: int) -> RowError:
        """The error with the place of its row."""
        if self._single:
            return error.at(None)
        return error.at(number, self._places[number] if self._places else "")


def blamed(error: RowError, batch: Batch, placed: Callable[[RowError, int], RowError]) -> RowError:
    """What the server says of a row of `batch`, whose first is row 0 to it; without a number it means one alone."""
    text, count = error.reason, len(next(iter(batch.raw.values())))
    found = re.search(r"\brow (\d+)\b:? ?", text)
    if not found and count > 1:
        return error
    number = min(int(found[1]), count - 1) if found else 0
    reason = (text[: found.start()] + text[found.end() :]).strip(" :,") if found else text
    column = next((name for name in batch.raw if reason.startswith((f"{name}: ", f"{name!r}: "))), "")
    if column:
        reason = reason.partition(": ")[2]
    return placed(RowError(reason, column), batch.first + number)


def stream(rows: Iterable[Row], served: Served) -> Iterator[Batch]:
    """Requests as rows come. What fails, be it a row or where rows come from, comes after the rows before it."""
    waiting = _Waiting(served, RowError.at)
    try:
        for row in rows:
            if batch := waiting.add(row):
                yield batch
    except Exception as error:
        yield from waiting.rest()
        yield Batch(0, {}, error)
        return
    yield from waiting.rest()


async def stream_async(rows: AsyncIterable[Row] | Iterable[Row], served: Served) -> AsyncIterator[Batch]:
    """The same of rows that may be awaited."""
    if not isinstance(rows, AsyncIterable):
        for batch in stream(rows, served):
            yield batch
        return
    waiting = _Waiting(served, RowError.at)
    last: list[Batch] = []
    try:
        async for row in rows:
            if made := waiting.add(row):
                yield made
    except Exception as error:
        last = [Batch(0, {}, error)]
    for batch in [*waiting.rest(), *last]:
        yield batch


def in_order(items: Iterable[T], submit: Callable[[T], Future[list[Answer]]]) -> Iterator[Answer]:
    """Answers in the order of their items, a few of which are under way at a time."""
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
    """The answers to each item, in order."""
    pending: deque[asyncio.Future[list[Answer]]] = deque()
    try:
        async for item in items:
            pending.append(asyncio.ensure_future(ask(item)))
            await asyncio.sleep(0)  # off it goes, before more is read
            if len(pending) >= IN_FLIGHT:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*pending, return_exceptions=True)


class _Waiting:
    """Checked rows, until there are enough for a request."""

    def __init__(self, served: Served, placed: Callable[[RowError, int], RowError]) -> None:
        self._served, self._placed = served, placed
        self._cells: list[dict[str, Any]] = []
        self._first = 0

    def add(self, row: Any) -> Batch | None:
        """The request that is full with this row.

        Raises:
            RowError: the row cannot be asked.
        """
        try:
            if not isinstance(row, Mapping):
                raise RowError(f"a row is a dictionary {{column: value}}, not {row!r:.40}")
            self._cells.append(self._served.raw(row))
        except RowError as error:
            raise self._placed(error, self._first + len(self._cells)) from error.__cause__
        return self._taken() if len(self._cells) >= max(1, self._served.max_batch) else None

    def rest(self) -> list[Batch]:
        """What is left, if anything."""
        return [self._taken()] if self._cells else []

    def _taken(self) -> Batch:
        raw = {name: [row[name] for row in self._cells] for name in self._served.inputs}
        batch = Batch(self._first, raw)
        self._first, self._cells = self._first + len(self._cells), []
        return batch


def _table(path: Path, served: Served) -> tuple[list[str], list[Row]]:
    try:
        from serving.client import inputs
    except ModuleNotFoundError as error:
        raise ImportError(f"{path}: tables are read with {error.name}, which is not installed here") from error
    return inputs.whole(path, served)


def _records(frame: Any) -> list[Row]:
    if not frame.columns.is_unique:
        raise ValueError("two columns of the data frame have one name")
    known: list[Row] = frame.astype(object).where(frame.notna(), None).to_dict("records")  # NA and NaT are missing, too
    return known
