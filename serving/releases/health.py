"""Whether what answers wrongly, or not at all, is broken: a busy server is not, nor one whose callers send nonsense."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from serving.releases.proof import known
from serving.releases.store import Store
from serving.triton import parity
from serving.triton.admin import Admin, CallFailed
from serving.triton.names import Names
from serving.triton.processes import STOPPED, Process, runs, servers, workers
from serving.triton.repository import golden
from stages.core.errors import UserError

MISSES = 2  # looks in a row without the right answer
LIVE_S = 1.0  # for the server to say that it lives
STILL_S = 3.0  # without an answer and without computing, and it is broken
COMPUTING_S = 30.0  # without an answer to anybody while it computes: one request may take that long
COMPUTING = 0.05  # of a processor


class Finding(Enum):
    """What a miss means."""

    OPEN = "not known yet"
    CALLERS = "the callers' doing: nothing is broken"
    BROKEN = "the model is broken"
    SILENT = "the server is broken"


@dataclass(frozen=True)
class Miss:
    """A look at a model without the right answer. `status`: gRPC's code; nothing where the answer was a wrong one."""

    why: str
    status: str = ""


@dataclass
class Case:
    """What is known of a release under its public name since it last answered rightly, or was seen to be busy."""

    names: Names
    since: float = field(default_factory=time.monotonic)
    workers: dict[str, set[int]] = field(default_factory=dict)  # model -> its processes
    cpu_s: dict[int, float] = field(default_factory=dict)  # process -> what it had used
    misses: int = 0
    answered: int | None = None  # requests, at the first miss

    def right(self, processes: list[Process]) -> None:
        """Begin anew: it answers."""
        self.since, self.misses, self.answered = time.monotonic(), 0, None
        self.workers = {model: {each.pid for each in workers(processes, model)} for model in self._parts()}
        self.cpu_s = {each.pid: each.cpu_s for each in processes}

    def missed(self, miss: Miss, admin: Admin, processes: list[Process]) -> Finding:
        """Take note of a miss, and say what it means."""
        self.misses += 1
        if miss.status == "INVALID_ARGUMENT":
            return Finding.CALLERS
        server = servers(processes)
        if _stopped(server) or not admin.is_live(LIVE_S):
            return Finding.SILENT if self.misses >= MISSES and self._stands(server) else Finding.OPEN
        answered = admin.success_count(self._paths(), LIVE_S)
        if self.answered is None:
            self.answered = answered
        if self.misses < MISSES:
            return Finding.OPEN
        own = [each for model in self._parts() for each in workers(processes, model)]
        gone = any(known - {each.pid for each in own} for known in self.workers.values())
        if not miss.status or gone or any(each.state in STOPPED for each in own):
            return Finding.BROKEN
        if answered is not None and answered != self.answered:
            self.right(processes)
            return Finding.CALLERS
        late = miss.status == "DEADLINE_EXCEEDED"
        return Finding.OPEN if late and not self._stands(own) else Finding.BROKEN

    def _stands(self, processes: list[Process]) -> bool:
        """Whether processes that do not answer will not, for all that can be seen of them."""
        if _stopped(processes):
            return True
        waited = time.monotonic() - self.since
        used = sum(each.cpu_s - self.cpu_s.get(each.pid, 0.0) for each in processes)
        computing = used > COMPUTING * waited or any(map(runs, processes))
        return waited > (COMPUTING_S if computing else STILL_S)

    def _parts(self) -> tuple[str, str]:
        return self.names.encode, self.names.network

    def _paths(self) -> tuple[str, str]:
        """The models whose answers have come through all parts."""
        return self.names.public, self.names.candidate


def _stopped(processes: list[Process]) -> bool:
    """Whether all of them were sent SIGSTOP."""
    return bool(processes) and all(each.state in STOPPED for each in processes)


def probe(store: Store, admin: Admin, names: Names, timeout_s: float) -> Miss | None:
    """Ask the public name for one golden row; what is wrong with the answer, if anything is."""
    try:
        schema, rows = golden(store.repository, names)
        row = {column: values[:1] for column, values in rows.items()}
        answers = admin.answers(names.public, schema, row, timeout_s)
        release = Names(names.public, str(answers["release"][0]))  # another one, while a release is under way
        first = {output: values[:1] for output, values in known(store, release).items()}
    except CallFailed as error:
        return Miss(str(error), error.status)
    except (UserError, OSError) as error:
        return Miss(str(error))
    if release.release != names.release == store.current(names.public):
        return Miss(f"{names.public} answers as release {release.release} and not as {names.release}")
    differs = parity.differ(answers, first, schema.outputs())[0]
    return Miss(f"{names.public} answers wrongly") if differs else None
