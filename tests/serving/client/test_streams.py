"""Streams of rows are answered in order, a few requests ahead, and their errors come in place."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from serving.client import (
    AsyncClient,
    Client,
    RowError,
)
from serving.client.request import IN_FLIGHT
from stages.schema import kind
from tests.support.toy_client import EACH_WAY, LABELS, MAX_BATCH, OLD, Toy, rows


@EACH_WAY
def test_a_stream_is_answered_in_order_and_read_only_a_little_ahead(
    toy: Toy, protocol: str, asynchronous: bool
) -> None:
    read = 0
    given = rows(20 * MAX_BATCH + 1)

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for row in given:
            read += 1
            yield row

    async def source_async() -> AsyncIterator[dict[str, Any]]:
        for row in source():
            await asyncio.sleep(0)
            yield row

    received: list[dict[str, Any]] = []

    def take(answer: dict[str, Any]) -> None:
        received.append(answer)
        assert read <= len(received) + (IN_FLIGHT + 1) * MAX_BATCH

    async def ask() -> None:
        async with AsyncClient(toy.address(protocol), "toy") as client:
            async for answer in client.predict(source_async(), probabilities=True):
                take(answer)

    if asynchronous:
        asyncio.run(ask())
    else:
        with Client(toy.address(protocol), "toy") as client:
            answers = client.predict(source(), probabilities=True)
            assert read == 0
            for answer in answers:
                take(answer)
    served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in received])
    assert np.abs(served - toy.expected(given)).max() <= 1e-5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_in_a_stream_comes_after_the_answers_before_it(toy: Toy, asynchronous: bool) -> None:
    good = 2 * MAX_BATCH + 3

    def wrong_row() -> Iterator[dict[str, Any]]:
        yield from [{"amount": 1}] * good
        yield {"amount": "x"}

    def wrong_source() -> Iterator[dict[str, Any]]:
        yield from [{"amount": 1}] * good
        raise OSError("the source is gone")

    async def count_async(rows: Iterator[dict[str, Any]], answers: list[Any]) -> None:
        async with AsyncClient(toy.endpoint.grpc, "toy") as client:
            async for answer in client.predict(rows):
                answers.append(answer)

    for source, error in ((wrong_row, RowError), (wrong_source, OSError)):
        answers: list[Any] = []
        with pytest.raises(error) as caught:
            if asynchronous:
                asyncio.run(count_async(source(), answers))
            else:
                for answer in Client(toy.endpoint.grpc, "toy").predict(source()):
                    answers.append(answer)
        assert len(answers) == good
        if isinstance(caught.value, RowError):
            assert (caught.value.row, caught.value.column) == (good, "amount")


def test_an_abandoned_stream_leaves_no_thread_behind(toy: Toy) -> None:
    with Client(toy.endpoint.grpc, "toy") as client:
        answers = client.predict({"amount": number} for number in itertools.count())
        assert next(answers)["release"] == OLD
        answers.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 30
        while any(thread.name.startswith("millrace-client") for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@EACH_WAY
@pytest.mark.parametrize("before", [1, 3, MAX_BATCH, MAX_BATCH + 2])
def test_the_rows_before_one_that_the_server_rejects_are_answered(
    toy: Toy, protocol: str, asynchronous: bool, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind("number"), "raw", lambda value: value)  # so that the client does not reject it first
    given = [*[{"amount": 1.0}] * before, {"amount": float("inf")}, *[{"amount": 1.0}] * 3]
    received: list[dict[str, Any]] = []

    async def ask() -> None:
        async with AsyncClient(toy.address(protocol), "toy") as client:
            async for answer in client.predict(row for row in given):
                received.append(answer)

    with pytest.raises(RowError) as caught:
        if asynchronous:
            asyncio.run(ask())
        else:
            with Client(toy.address(protocol), "toy") as client:
                for answer in client.predict(row for row in given):
                    received.append(answer)
    assert (len(received), caught.value.row, caught.value.column) == (before, before, "amount")
