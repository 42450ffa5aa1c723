"""Run Triton on the store: probe it every second, and heal it where it does not answer as it should.

Healing works on a full disk: what cannot be written is reported once, and written when it can be.
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
from serving.releases.store import RECORD, RESTORE, Store
from serving.releases.switch import settle, switch
from serving.triton import manifest as manifests
from serving.triton import processes as procs
from serving.triton.admin import Admin, administered, announcement
from serving.triton.launcher import Endpoint, running
from serving.triton.names import Names
from serving.triton.scratch import scratch
from stages.core.errors import Busy, Misuse, UserError
from stages.core.locks import holding

AGAIN_S = 0.25  # between two probes, after one without the right answer
LONGEST_WAIT_S = 30.0
PATIENCE_S = 5.0  # for each step of healing; more where the server took long to start
ENDING_S = 3.0  # for replaced workers to end by themselves
LOST = 8  # dead workers after which the server is restarted


class Ports(NamedTuple):
    """The server's ports on loopback; a free one is chosen for each that is None."""

    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None


class Gone(UserError):
    """The store's folder was moved, replaced or removed."""


Report = Callable[[str], None]


def serve(
    root: Path, store: Store, ports: Ports, probe_s: float, probe_timeout_s: float, report: Report, stop: Event
) -> None:
    """Serve the live releases until `stop` is set. Requests in flight are then still answered.

    Args:
        root: the project's folder.
        store: the releases on this host.
        ports: where to serve.
        probe_s: seconds between two probes of each public name.
        probe_timeout_s: seconds that the answer to a probe may take.
        report: takes messages for the user.
        stop: ends the server.

    Raises:
        UserError: nothing is released, the server does not start at all, or the store's folder is gone.
    """
    waits, served = Backoff(), False
    report = unfailing(report)
    journal = Journal(store.ledger, report)
    with holding(store.folder / "serving.lock", "a server"), staying(store.folder) as check, scratch() as place:
        key = store.renewed_key()
        while not stop.is_set():
            check()
            start = time.monotonic()
            try:
                models = sound_models(root, store, journal, report)
                with running(store.repository, models, admin_key=key, place=place, **ports._asdict()) as endpoint:
                    served = True
                    patience_s = max(PATIENCE_S, 3 * (time.monotonic() - start))
                    live = ", ".join(f"{name}, release {store.current(name)}" for name in store.names())
                    with administered(endpoint.grpc, endpoint.admin_key, patience_s) as admin:
                        watcher = Watch(root, store, endpoint, admin, journal, report, probe_timeout_s, waits, check)
                        watcher.announce()
                        report(f"{live}: HTTP {endpoint.http}, gRPC {endpoint.grpc}. Ctrl-C ends it")
                        try:
                            reason = watcher.until(stop, probe_s)
                        finally:
                            watcher.withdraw()
            except Busy as error:
                report(f"{error}; this server starts afterwards")
                stop.wait(1)
                continue
            except (UserError, OSError) as error:
                if not served or isinstance(error, Gone):
                    raise
                reason = str(error)
            if stop.is_set():
                return
            wait_s = waits.next_s()
            journal.append("restarted", reason=reason)
            report(f"{reason}: restarting it" + (f" in {wait_s:g} s" if wait_s else ""))
            stop.wait(wait_s)


class Backoff:
    """Waits between restarts. They grow until a probe gets the right answer; callers' requests do not matter."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """Start again with no wait, because a probe got the right answer."""
        self._failures = 0

    def next_s(self) -> float:
        """Return the seconds to wait before the next attempt; 0 before the first."""
        wait_s = min(LONGEST_WAIT_S, 0.25 * 2**self._failures) if self._failures else 0.0
        self._failures += 1
        return wait_s


def sound_models(root: Path, store: Store, journal: Journal, report: Report) -> list[str]:
    """Return the models to load at the start: each public name, its live release and the one before it.

    A live release whose files were altered is repaired, or the one before it answers in its place.

    Raises:
        Misuse: nothing is released.
        UserError: the files of all releases of a name were altered.
    """
    with store.writing("a server's start"):
        events, models = ledger.lines(store.ledger), []
        try:
            for live in filter(None, (ledger.live(events, name) for name in store.names())):
                repair(root, store, live)
            settle(root, store, None)
        except OSError as error:
            report(f"{error}: going on without the repair")
        for name in store.names():
            current, standby = store.current(name), store.predecessor(name)
            if current is None:
                raise UserError("release-altered", f"no release of {name} is intact: {RESTORE}")
            if faults := store.faults(current):
                if standby is None or store.faults(standby):
                    raise UserError(
                        "release-altered",
                        f"the files of release {current} were altered, and no other is intact: {'; '.join(faults[:3])}:"
                        f" {RESTORE}",
                    )
                store.switch(Names(name, standby))
                journal.append("standing in", name=name, release=standby, reason=faults[0])
                report(f"{faults[0]}: release {standby} stands in for {current}")
                current, standby = standby, None
            models += [name, Names(name, current).candidate]
            if standby and not store.faults(standby):
                models.append(Names(name, standby).candidate)
    if not models:
        raise Misuse("release-none", "nothing is released yet: `millrace release` does that")
    return models


@dataclass
class Watch:
    """A running server that is probed again and again."""

    root: Path
    store: Store
    endpoint: Endpoint
    admin: Admin
    journal: Journal
    report: Report
    timeout_s: float  # of a probe
    waits: Backoff = field(default_factory=Backoff)
    check: Callable[[], None] = lambda: None  # raises Gone
    cases: dict[str, Case] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)

    def until(self, stop: Event, probe_s: float) -> str:
        """Probe every public name until `stop` is set or the server must be restarted. Returns the reason for that."""
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
                answers, reason = self.look(name)
                healthy = healthy and answers
                if reason:
                    return reason
        return ""

    def look(self, name: str) -> tuple[bool, str]:
        """Probe a public name, and heal it if it is broken.

        Returns:
            Whether it answered correctly, and the reason why the server must be restarted; "" if it need not.
        """
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
            case.reset(processes)
            self.waits.reset()
            self._reported.discard(name)
            return True, ""
        finding = case.missed(miss, self.admin, processes)
        if finding is Finding.SILENT:
            with suppress(ProcessLookupError):
                os.killpg(self.endpoint.process.pid, signal.SIGKILL)  # a stopped server reacts to nothing else
            return False, f"the server is silent ({miss.why})"
        if finding is Finding.CALLERS:
            self.report_once(name, f"{miss.why}: nothing is broken, so nothing is healed")
        if finding is not Finding.BROKEN:
            return False, ""
        if procs.lost(processes) > LOST:
            return False, f"{miss.why}, and the server has lost {procs.lost(processes)} workers"
        self.report(f"{miss.why}: healing it")
        if failure := self.heal(name, miss):
            return False, f"{name} cannot be healed ({failure})"
        self.report(f"release {self.store.current(name)} answers as {name}")
        return False, ""

    def heal(self, name: str, miss: Miss) -> str:
        """Switch to the release before it at once; then reload the parts, and switch back if they answer correctly.

        Does nothing while a release is under way.

        Returns:
            The reason why nothing answers now; "" if something does.
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
                        raise UserError("release-altered", f"the files of release {current} were altered: {RESTORE}")
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
        """Remove the router of a canary whose command was killed."""
        if not self.store.routed():
            return
        try:
            with self.store.writing("the end of a canary"):
                settle(self.root, self.store, self.admin)
        except Busy:  # its command is alive
            pass
        except (UserError, OSError) as error:
            self.report_once("canary", f"the canary's router cannot be removed: {error}")

    def announce(self) -> None:
        """Store the server's announcement and key for other commands, also where somebody has removed them."""
        current = announcement(self.endpoint, os.getpid())
        try:
            if self.store.announced() != current:
                self.store.announce(current)
            if self.store.key != self.endpoint.admin_key:
                self.store.keep_key(self.endpoint.admin_key)
            self._reported.discard("announcement")
        except OSError as error:
            self.report_once("announcement", f"other commands cannot find this server: {error}")

    def withdraw(self) -> None:
        """Remove the announcement."""
        if self.store.announced() == announcement(self.endpoint, os.getpid()):
            with suppress(OSError):
                self.store.announce(None)

    def report_once(self, topic: str, text: str) -> None:
        """Report something that would otherwise be reported every second."""
        if topic not in self._reported:
            self._reported.add(topic)
            self.report(text)

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
        """End workers that have been replaced. Triton waits for a hung worker forever."""
        deadline = time.monotonic() + ENDING_S
        while before & self._workers(names) and time.monotonic() < deadline:
            time.sleep(0.05)
        procs.kill(before, self.endpoint.process.pid)


def repair(root: Path, store: Store, release: str) -> None:
    """Restore the altered files of a release from the champion, where that has the same release."""
    champion = root / "champion"
    if not store.record(release).exists() or not store.faults(release) or not (champion / "repository").exists():
        return
    with suppress(UserError):
        manifest = manifests.load(champion / "manifest.json")
        if manifest.id == release:
            files = [name for name in RECORD if (champion / name).exists()]
            record = {name: (champion / name).read_text(encoding="utf-8") for name in files}
            store.add(champion / "repository", manifest, record)


@contextmanager
def staying(folder: Path) -> Iterator[Callable[[], None]]:
    """Yield a check that raises Gone where `folder` is no longer the folder that it was when the block began."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def check() -> None:
        with suppress(OSError):
            if os.path.samestat(os.fstat(held), os.stat(folder)):
                return
        raise Gone(
            "server-folder-moved",
            f"{folder} has been moved, replaced or removed: start `millrace serve` where it is now",
        )

    try:
        yield check
    finally:
        os.close(held)


def unfailing(report: Report) -> Report:
    """Return a report that never raises, even where its file is on a full disk or its reader has gone."""

    def wrapped(text: str) -> None:
        with suppress(OSError, ValueError):
            report(text)

    return wrapped
