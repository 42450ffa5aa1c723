"""Compute a task for every chunk, in order and by several workers, with only a few chunks in memory at a time."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from stages.core.children import die_with_parent
from stages.core.errors import UserError


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(task: Callable[[Any], Any], chunks: Iterator[Any], workers: int, threads: bool = False) -> Iterator[Any]:
    """Yield `task` of every chunk in order.

    Args:
        threads: Whether the workers are threads, which need no copies of the chunks and results. They are as fast only
            if the task spends its time in libraries that run outside Python's global lock.
    """
    pool = ThreadPoolExecutor(workers) if threads else _processes(workers)
    pending: deque[Future[Any]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(task, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "data-memory",
            "a process that reads samples was killed, most likely because memory ran out: close other programs",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _processes(workers: int) -> Executor:
    fork = sys.platform == "linux"  # safe, as no threads run yet, and it saves each worker the imports
    context = multiprocessing.get_context("fork" if fork else None)
    return ProcessPoolExecutor(workers, context, initializer=_begin)


def _begin() -> None:
    """Set up a worker: it dies with its parent, leaves Ctrl-C to it, and reports faults only as rejects."""
    die_with_parent()
    gc.freeze()  # keep the garbage collector from scanning the parent's objects
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.disable()
