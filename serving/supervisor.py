"""Triton on the store for as long as it is wanted: asked every second, healed when it does not answer as it should."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import NamedTuple

from serving import ledger
from serving.admin import Admin, administered, announcement, known, prove
from serving.launcher import Endpoint, running
from serving.release import settle, switch
from serving.repository import Names, golden
from serving.store import RECORD, RESTORE, Store
from stages import manifest as manifests
from stages import parity
from stages.command import holding
from stages.errors import Busy, Misuse, UserError

MISSES = 2  # looks in a row without the right answer
LONG_S = 60.0  # a server that has lived so long has not failed to start
LONGEST_WAIT_S = 30.0


class Ports(NamedTuple):
    """Of the server on loopback; a free one where there is none."""

    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None


Tell = Callable[[str], None]


def serve(
    root: Path, store: Store, ports: Ports, probe_s: float, probe_timeout_s: float, tell: Tell, stop: Event
) -> None:
    """Serve what is released until `stop` is set; requests in flight are answered first.

    Raises:
        UserError: nothing is released, or the server does not start at all.
    """
    failures = 0
    with holding(store.folder / "serving.lock", "a server"):
        key = store.renewed_key()
        while not stop.is_set():
            try:
                models = sound_models(root, store, tell)
            except Busy as error:
                tell(f"{error}; this server starts then")
                stop.wait(1)
                continue
            began = time.monotonic()
            try:
                with running(store.repository, models, admin_key=key, **ports._asdict()) as endpoint:
                    store.announce(announcement(endpoint, os.getpid()))
                    live = ", ".join(f"{name}, release {store.current(name)}" for name in store.names())
                    tell(f"{live}: HTTP {endpoint.http}, gRPC {endpoint.grpc}. Ctrl-C ends it")
                    try:
                        why = watch(root, store, endpoint, probe_s, probe_timeout_s, tell, stop)
                    finally:
                        store.announce(None)
            except UserError as error:
                if not failures:
                    raise
                why = str(error)
            if stop.is_set():
                return
            failures = 1 if time.monotonic() - began > LONG_S else failures + 1
            wait_s = min(LONGEST_WAIT_S, 0.25 * 2**failures)
            ledger.append(store.ledger, "restarted", reason=why)
            tell(f"{why}: starting it again in {wait_s:g} s")
            stop.wait(wait_s)


def sound_models(root: Path, store: Store, tell: Tell) -> list[str]:
    """The models to begin with: each public name on bytes that are what they were, and the release before it.

    Raises:
        Misuse: nothing is released.
        UserError: none of a name's releases is what it was.
    """
    with store.writing("a server's start"):
        told, models = ledger.lines(store.ledger), []
        for live in filter(None, (ledger.live(told, name) for name in store.names())):
            repair(root, store, live)
        settle(root, store, None)
        for name in store.names():
            current, standby = store.current(name), store.predecessor(name)
            if current is None:
                raise UserError(f"no release of {name} is what it was: {RESTORE}")
            if faults := store.faults(current):
                if standby is None or store.faults(standby):
                    raise UserError(f"release {current} is not what it was, and no other is: {'; '.join(faults[:3])}")
                store.switch(Names(name, standby))
                ledger.append(store.ledger, "standing in", name=name, release=standby, reason=faults[0])
                tell(f"{faults[0]}: release {standby} stands in for {current}")
                current, standby = standby, None
            models += [name, Names(name, current).candidate]
            if standby and not store.faults(standby):
                models.append(Names(name, standby).candidate)
    if not models:
        raise Misuse("nothing is released yet: `millrace release` does that")
    return models


def watch(
    root: Path, store: Store, endpoint: Endpoint, probe_s: float, timeout_s: float, tell: Tell, stop: Event
) -> str:
    """Look at every public name again and again until `stop` is set; why the server must be started anew."""
    with administered(endpoint.grpc, endpoint.admin_key) as admin:
        while not stop.wait(probe_s):
            if endpoint.process.poll() is not None:
                return f"the server ended by itself with code {endpoint.process.returncode}"
            if store.announced() is None or store.key != endpoint.admin_key:  # somebody has tidied up
                store.announce(announcement(endpoint, os.getpid()))
                store.keep_key(endpoint.admin_key)
            if store.routed():
                try:
                    with store.writing("the end of a canary"):
                        settle(root, store, admin)
                except Busy:  # its command is alive
                    pass
                except UserError as error:
                    tell(f"the canary's router cannot be removed: {error}")
            for name in store.names():
                faults = list(takewhile(bool, (probe(store, admin, name, timeout_s) for _ in range(MISSES))))
                if len(faults) == MISSES:
                    tell(f"{faults[-1]}: healing it")
                    if not heal(root, store, admin, name, faults[-1]):
                        return faults[-1]
                    tell(f"release {store.current(name)} answers as {name}")
    return ""


def probe(store: Store, admin: Admin, name: str, timeout_s: float) -> str:
    """Ask for one golden row; what is wrong with the answer, or nothing."""
    current = store.current(name)
    if current is None:
        return ""
    schema, rows = golden(store.repository, Names(name, current))
    row = {column: values[:1] for column, values in rows.items()}
    try:
        answers = admin.answers(name, schema, row, timeout_s)
        release = Names(name, str(answers["release"][0]))  # another one, while a release is under way
        first = {output: values[:1] for output, values in known(store, release).items()}
    except (UserError, OSError) as error:
        return str(error)
    if release.release != current == store.current(name):
        return f"{name} answers as release {release.release} and not as {current}"
    return f"{name} answers wrongly" if parity.differ(answers, first, schema.outputs())[0] else ""


def heal(root: Path, store: Store, admin: Admin, name: str, fault: str) -> bool:
    """The release before it answers at once; then the parts are loaded anew, and return if they answer as ever.

    Whether anything answers now. Where a release is under way, that is left alone.
    """
    try:
        with store.writing("healing"):
            current, standby = store.current(name), store.predecessor(name)
            assert current
            names = Names(name, current)
            healthy = standby is not None and _stands_in(store, admin, Names(name, standby), current)
            try:
                repair(root, store, current)
                if store.faults(current):
                    raise UserError(f"the bytes of release {current} are not what they were")
                store.touch(names)
                for model in (names.encode, names.network, names.candidate):
                    admin.load(model)
                prove(admin, store, names, names.candidate)
                switch(store, admin, names, standby if healthy else current)
            except UserError as error:
                if healthy:
                    ledger.append(store.ledger, "standing in", name=name, release=standby, reason=str(error))
                return healthy
            ledger.append(store.ledger, "healed", name=name, release=current, reason=fault)
            return True
    except Busy:
        return True


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


def _stands_in(store: Store, admin: Admin, standby: Names, current: str) -> bool:
    try:
        if standby.candidate not in admin.loaded():
            admin.load(standby.candidate)
        switch(store, admin, standby, current)
        return True
    except UserError:
        return False
