"""Triton on the store for as long as it is wanted: asked every second, healed when it does not answer as it should.

Nothing here needs to write in order to heal: what a full disk keeps out is reported once, and written when it can be.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import NamedTuple

from serving.releases import health, ledger
from serving.releases.health import Case, Finding, Miss
from serving.releases.ledger import Journal
from serving.releases.proof import prove
from serving.releases.release import settle, switch
from serving.releases.store import RECORD, RESTORE, Store
from serving.triton import manifest as manifests
from serving.triton import processes as procs
from serving.triton.admin import Admin, administered, announcement
from serving.triton.launcher import Endpoint, running
from serving.triton.names import Names
from serving.triton.scratch import scratch
from stages.core.command import holding
from stages.core.errors import Busy, Misuse, UserError

AGAIN_S = 0.25  # between two looks, after one without the right answer
LONGEST_WAIT_S = 30.0
PATIENCE_S = 5.0  # for each step of healing; more where the server took long to start
ENDING_S = 3.0  # for replaced workers to end by themselves
LOST = 8  # workers that a server may have lost for ever before it is started anew


class Ports(NamedTuple):
    """Of the server on loopback; a free one where there is none."""

    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None


class Gone(UserError):
    """The store is no longer where it was."""


Tell = Callable[[str], None]


def serve(
    root: Path, store: Store, ports: Ports, probe_s: float, probe_timeout_s: float, tell: Tell, stop: Event
) -> None:
    """Serve what is released until `stop` is set; requests in flight are answered first.

    Raises:
        UserError: nothing is released, the server does not start at all, or the folder has been moved away.
    """
    waits, served = Backoff(), False
    say = unfailing(tell)
    journal = Journal(store.ledger, say)
    with holding(store.folder / "serving.lock", "a server"), staying(store.folder) as check, scratch() as place:
        key = store.renewed_key()
        while not stop.is_set():
            check()
            began = time.monotonic()
            try:
                models = sound_models(root, store, journal, say)
                with running(store.repository, models, admin_key=key, place=place, **ports._asdict()) as endpoint:
                    served = True
                    patience_s = max(PATIENCE_S, 3 * (time.monotonic() - began))
                    live = ", ".join(f"{name}, release {store.current(name)}" for name in store.names())
                    with administered(endpoint.grpc, endpoint.admin_key, patience_s) as admin:
                        watcher = Watch(root, store, endpoint, admin, journal, say, probe_timeout_s, waits, check)
                        watcher.announce()
                        say(f"{live}: HTTP {endpoint.http}, gRPC {endpoint.grpc}. Ctrl-C ends it")
                        try:
                            why = watcher.until(stop, probe_s)
                        finally:
                            watcher.withdraw()
            except Busy as error:
                say(f"{error}; this server starts then")
                stop.wait(1)
                continue
            except (UserError, OSError) as error:
                if not served or isinstance(error, Gone):
                    raise
                why = str(error)
            if stop.is_set():
                return
            wait_s = waits.next_s()
            journal.append("restarted", reason=why)
            say(f"{why}: starting it again" + (f" in {wait_s:g} s" if wait_s else ""))
            stop.wait(wait_s)


class Backoff:
    """Waits that grow while nothing that we try brings a right answer; callers cannot make them grow."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """It answers."""
        self._failures = 0

    def next_s(self) -> float:
        """How long to wait before the next try: nothing before the first."""
        wait_s = min(LONGEST_WAIT_S, 0.25 * 2**self._failures) if self._failures else 0.0
        self._failures += 1
        return wait_s


def sound_models(root: Path, store: Store, journal: Journal, tell: Tell) -> list[str]:
    """The models to begin with: each public name on bytes that are what they were, and the release before it.

    Raises:
        Misuse: nothing is released.
        UserError: none of a name's releases is what it was.
    """
    with store.writing("a server's start"):
        events, models = ledger.lines(store.ledger), []
        try:
            for live in filter(None, (ledger.live(events, name) for name in store.names())):
                repair(root, store, live)
            settle(root, store, None)
        except OSError as error:
            tell(f"{error}: going on with what is there")
        for name in store.names():
            current, standby = store.current(name), store.predecessor(name)
            if current is None:
                raise UserError(f"no release of {name} is what it was: {RESTORE}")
            if faults := store.faults(current):
                if standby is None or store.faults(standby):
                    raise UserError(f"release {current} is not what it was, and no other is: {'; '.join(faults[:3])}")
                store.switch(Names(name, standby))
                journal.append("standing in", name=name, release=standby, reason=faults[0])
                tell(f"{faults[0]}: release {standby} stands in for {current}")
                current, standby = standby, None
            models += [name, Names(name, current).candidate]
            if standby and not store.faults(standby):
                models.append(Names(name, standby).candidate)
    if not models:
        raise Misuse("nothing is released yet: `millrace release` does that")
    return models


@dataclass
class Watch:
    """A running server, looked at again and again."""

    root: Path
    store: Store
    endpoint: Endpoint
    admin: Admin
    journal: Journal
    tell: Tell
    timeout_s: float  # of a look
    waits: Backoff = field(default_factory=Backoff)
    check: Callable[[], None] = lambda: None  # raises Gone
    cases: dict[str, Case] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)

    def until(self, stop: Event, probe_s: float) -> str:
        """Look at every public name until `stop` is set; why the server must be started anew."""
        healthy = True
        while not stop.wait(probe_s if healthy else min(probe_s, AGAIN_S)):
            self.check()
            if self.endpoint.process.poll() is not None:
                return f"the server ended by itself with code {self.endpoint.process.returncode}"
            self.announce()
            self.journal.flush()
            self.end_canary()
            healthy = True
            for name in self.store.names():
                right, why = self.look(name)
                healthy = healthy and right
                if why:
                    return why
        return ""

    def look(self, name: str) -> tuple[bool, str]:
        """Whether a public name answers rightly, and why the server must be started anew, if it must."""
        current = self.store.current(name)
        if current is None:
            return True, ""
        names = Names(name, current)
        if name not in self.cases or self.cases[name].names != names:
            self.cases[name] = Case(names)
        case = self.cases[name]
        miss = health.probe(self.store, self.admin, names, self.timeout_s)
        processes = procs.family(self.endpoint.process.pid)
        if miss is None:
            case.right(processes)
            self.waits.reset()
            self._reported.discard(name)
            return True, ""
        finding = case.missed(miss, self.admin, processes)
        if finding is Finding.SILENT:
            with suppress(ProcessLookupError):
                os.killpg(self.endpoint.process.pid, signal.SIGKILL)  # a stopped server hears nothing else
            return False, f"the server is silent ({miss.why})"
        if finding is Finding.CALLERS:
            self.once(name, f"{miss.why}: nothing is broken, nothing is healed")
        if finding is not Finding.BROKEN:
            return False, ""
        if procs.lost(processes) > LOST:
            return False, f"{miss.why}, and the server has lost {procs.lost(processes)} workers"
        self.tell(f"{miss.why}: healing it")
        if failure := self.heal(name, miss):
            return False, f"{name} cannot be healed ({failure})"
        self.tell(f"release {self.store.current(name)} answers as {name}")
        return False, ""

    def heal(self, name: str, miss: Miss) -> str:
        """The release before it answers at once; then the parts are loaded anew, and return if they answer as ever.

        Why nothing answers now, if nothing does. Where a release is under way, that is left alone.
        """
        store, admin = self.store, self.admin
        self.check()
        try:
            with store.writing("healing"):
                current, standby = store.current(name), store.predecessor(name)
                if current is None:
                    return f"no release of {name} is live"
                names = Names(name, current)
                healthy = standby is not None and self._stands_in(Names(name, standby), current)
                before = self._workers(names)
                try:
                    repair(self.root, store, current)
                    if store.faults(current):
                        raise UserError(f"the bytes of release {current} are not what they were")
                    store.touch(names)
                    for model in (names.encode, names.network, names.candidate):
                        admin.load(model)
                    prove(admin, store, names, names.candidate)
                    switch(store, admin, names, standby if healthy else current)
                except (UserError, OSError) as error:
                    if healthy:
                        self.journal.append("standing in", name=name, release=standby, reason=str(error))
                    return "" if healthy else str(error)
                self._end(before, names)
                self.cases.pop(name, None)
                self.journal.append("healed", name=name, release=current, reason=miss.why)
        except Busy:
            pass
        return ""

    def end_canary(self) -> None:
        """Remove the router of a command that was killed."""
        if not self.store.routed():
            return
        try:
            with self.store.writing("the end of a canary"):
                settle(self.root, self.store, self.admin)
        except Busy:  # its command is alive
            pass
        except (UserError, OSError) as error:
            self.once("canary", f"the canary's router cannot be removed: {error}")

    def announce(self) -> None:
        """Say where the server is, and its key, for other commands: again where somebody has tidied up."""
        mine = announcement(self.endpoint, os.getpid())
        try:
            if self.store.announced() != mine:
                self.store.announce(mine)
            if self.store.key != self.endpoint.admin_key:
                self.store.keep_key(self.endpoint.admin_key)
            self._reported.discard("announcement")
        except OSError as error:
            self.once("announcement", f"other commands cannot find this server: {error}")

    def withdraw(self) -> None:
        """Say that there is no server."""
        if self.store.announced() == announcement(self.endpoint, os.getpid()):
            with suppress(OSError):
                self.store.announce(None)

    def once(self, topic: str, text: str) -> None:
        """Report what would otherwise be reported every second."""
        if topic not in self._reported:
            self._reported.add(topic)
            self.tell(text)

    def _stands_in(self, standby: Names, current: str) -> bool:
        try:
            if standby.candidate not in self.admin.loaded():
                self.admin.load(standby.candidate)
            switch(self.store, self.admin, standby, current)
            return True
        except (UserError, OSError):
            return False

    def _workers(self, names: Names) -> set[int]:
        family = procs.family(self.endpoint.process.pid)
        return {each.pid for model in (names.encode, names.network) for each in procs.workers(family, model)}

    def _end(self, before: set[int], names: Names) -> None:
        """End workers that have been replaced; Triton waits for a hung one for ever."""
        deadline = time.monotonic() + ENDING_S
        while before & self._workers(names) and time.monotonic() < deadline:
            time.sleep(0.05)
        procs.kill(before, self.endpoint.process.pid)


def repair(root: Path, store: Store, release: str) -> None:
    """Fetch a release's parts from the champion's, where its own are not what they were and those are."""
    champion = root / "champion"
    if not store.record(release).exists() or not store.faults(release) or not (champion / "repository").exists():
        return
    with suppress(UserError):
        made = manifests.load(champion / "manifest.json")
        if made.id == release:
            kept = [name for name in RECORD if (champion / name).exists()]
            known = {name: (champion / name).read_text(encoding="utf-8") for name in kept}
            store.add(champion / "repository", made, known)


@contextmanager
def staying(folder: Path) -> Iterator[Callable[[], None]]:
    """A check that raises Gone where `folder` is no longer the one that it was when the block began."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def check() -> None:
        with suppress(OSError):
            if os.path.samestat(os.fstat(held), os.stat(folder)):
                return
        raise Gone(f"{folder} has been moved, replaced or removed: start `millrace serve` where it is now")

    try:
        yield check
    finally:
        os.close(held)


def unfailing(tell: Tell) -> Tell:
    """A report that hinders nothing, where its file is on a full disk or its reader has gone."""

    def say(text: str) -> None:
        with suppress(OSError, ValueError):
            tell(text)

    return say
