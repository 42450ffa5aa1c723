"""Decide whether a model or server that answers wrongly, or not at all, is broken.

A busy server is not broken, and neither is one whose callers send bad requests.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from serving.releases.proof import golden_answers
from serving.releases.store import Store
from serving.triton import parity
from serving.triton.admin import Admin, CallFailed
from serving.triton.names import Names
from serving.triton.processes import STOPPED, Process, runs, servers, workers
from serving.triton.repository import golden
from stages.core.errors import UserError

MISSES = 2  # probes in a row without the right answer
LIVE_S = 1.0  # that the server has to report that it is live
STILL_S = 3.0  # without an answer and without computing, after which it is broken
COMPUTING_S = 30.0  # without an answer to anybody while it computes: one request may take that long
COMPUTING = 0.05  # the share of a CPU that counts as computing


class Finding(Enum):
    """What a missed probe means."""

    OPEN = "not known yet"
    CALLERS = "caused by the callers: nothing is broken"
    BROKEN = "the model is broken"
    SILENT = "the server is broken"


@dataclass(frozen=True)
class Miss:
    """A probe without the right answer. `status`: gRPC's code; "" where there was an answer, but a wrong one."""

    why: str
    status: str = ""


@dataclass
class Case:
    """What is known of a public name's release since it last answered correctly, or was found to be busy."""

    names: Names
    since: float = field(default_factory=time.monotonic)
    workers: dict[str, set[int]] = field(default_factory=dict)  # model -> ids of its processes
    cpu_s: dict[int, float] = field(default_factory=dict)  # process id -> CPU time at `since`
    misses: int = 0
    successes: int | None = None  # requests answered until the first miss

    def reset(self, processes: list[Process]) -> None:
        """Start again, because the model answers."""
        self.since, self.misses, self.successes = time.monotonic(), 0, None
        self.workers = {model: {worker.pid for worker in workers(processes, model)} for model in self._parts()}
        self.cpu_s = {process.pid: process.cpu_s for process in processes}

    def missed(self, miss: Miss, admin: Admin, processes: list[Process]) -> Finding:
        """Record a miss and return what it means."""
        self.misses += 1
        if miss.status == "INVALID_ARGUMENT":
            return Finding.CALLERS
        server = servers(processes)
        if _stopped(server) or not admin.is_live(LIVE_S):
            return Finding.SILENT if self.misses >= MISSES and self._hangs(server) else Finding.OPEN
        successes = admin.success_count(self._ensembles(), LIVE_S)
        if self.successes is None:
            self.successes = successes
        if self.misses < MISSES:
            return Finding.OPEN
        alive = [worker for model in self._parts() for worker in workers(processes, model)]
        died = any(before - {worker.pid for worker in alive} for before in self.workers.values())
        if not miss.status or died or any(worker.state in STOPPED for worker in alive):
            return Finding.BROKEN
        if successes is not None and successes != self.successes:
            self.reset(processes)
            return Finding.CALLERS
        late = miss.status == "DEADLINE_EXCEEDED"
        return Finding.OPEN if late and not self._hangs(alive) else Finding.BROKEN

    def _hangs(self, processes: list[Process]) -> bool:
        """Whether processes that do not answer have been stopped, or have had more time than they should need."""
        if _stopped(processes):
            return True
        waited = time.monotonic() - self.since
        used = sum(process.cpu_s - self.cpu_s.get(process.pid, 0.0) for process in processes)
        computing = used > COMPUTING * waited or any(map(runs, processes))
        return waited > (COMPUTING_S if computing else STILL_S)

    def _parts(self) -> tuple[str, str]:
        return self.names.encode, self.names.network

    def _ensembles(self) -> tuple[str, str]:
        """Return the models whose answers come from all parts."""
        return self.names.public, self.names.candidate


def _stopped(processes: list[Process]) -> bool:
    """Whether all of several processes were stopped by a signal."""
    return bool(processes) and all(process.state in STOPPED for process in processes)


def probe(store: Store, admin: Admin, names: Names, timeout_s: float) -> Miss | None:
    """Send one golden row to the public name. Returns what is wrong with the answer, if anything is."""
    try:
        schema, rows = golden(store.repository, names)
        row = {column: values[:1] for column, values in rows.items()}
        answers = admin.answers(names.public, schema, row, timeout_s)
        release = Names(names.public, str(answers["release"][0]))  # another one, while a release is under way
        first = {output: values[:1] for output, values in golden_answers(store, release).items()}
    except CallFailed as error:
        return Miss(str(error), error.status)
    except (UserError, OSError) as error:
        return Miss(str(error))
    if release.release != names.release == store.current(names.public):
        return Miss(f"{names.public} answers as release {release.release} and not as {names.release}")
    differs = parity.differ(answers, first, schema.outputs())[0]
    return Miss(f"{names.public} answers wrongly") if differs else None
