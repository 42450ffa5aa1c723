"""Switch a public name from one release to another. After a kill at any moment, the next command settles the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.releases import canary, champion, ledger
from serving.releases.proof import prove
from serving.releases.store import Store
from serving.triton.admin import Admin
from serving.triton.names import Names
from stages.core.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """The result of a release or a rollback."""

    release: str
    before: str | None  # the release that was live before
    live: bool  # whether a running server answers with it already
    notices: tuple[str, ...] = ()  # what the user should know


def switch(store: Store, admin: Admin | None, names: Names, before: str | None) -> None:
    """Point the public name at a release and check its answers; where that fails, point it back at `before`.

    Raises:
        UserError: the release does not answer as it should. The old release is live again.
    """
    store.switch(names)
    if admin is None:
        return
    try:
        admin.load(names.public)
        prove(admin, store, names, names.public)
    except UserError:
        if before is None:
            admin.unload(names.public)
            store.unpublish(names.public)
        else:
            store.switch(Names(names.public, before))
            admin.load(names.public)
        raise


def rehearse(store: Store, admin: Admin | None, names: Names, before: str | None) -> list[str]:
    """Roll back and return once, right after a release. Returns a warning where a rollback would fail."""
    if admin is None or before is None:
        return []
    old = Names(names.public, before)
    try:
        if old.candidate not in admin.loaded():
            admin.load(old.candidate)
        switch(store, admin, old, names.release)
    except UserError as error:
        return [f"a rollback to {before} would fail: {error}"]
    switch(store, admin, names, before)
    return []


def settle(root: Path, store: Store, admin: Admin | None) -> None:
    """Finish what became live and undo what did not. Each command does this first and last.

    Raises:
        UserError: the champion cannot be set; the next command tries again.
    """
    intended = store.intended()
    if intended and admin and store.current(intended["name"]):
        admin.load(intended["name"])
    if intended and store.current(intended["name"]) == intended["release"]:
        names = Names(intended["name"], intended["release"])
        champion.set_champion(root / "champion", store, names)
        if intended["event"] == ledger.RELEASED:
            store.mark_released(names)
        facts = {key: value for key, value in intended.items() if key != "event"}
        ledger.append(store.ledger, intended["event"], **facts)
    store.settled()
    for names in store.routed():
        canary.end(store, admin, names)
    events = ledger.lines(store.ledger)
    for name in store.names():
        current = store.current(name)
        live = Names(name, ledger.live(events, name) or current or store.kept(name)[0])
        if not store.is_public(live) and not store.faults(live.release):
            reinstate(store, admin, live, current)
    for names in store.unreleased():
        if store.current(names.public) != names.release:
            if admin:
                admin.unload(names.candidate)
            store.drop(names)


def reinstate(store: Store, admin: Admin | None, names: Names, standby: str | None) -> None:
    """Make the live release answer again where `standby` answers in its place, if it can."""
    with suppress(UserError):
        if admin:
            admin.load(names.candidate)
            prove(admin, store, names, names.candidate)
        switch(store, admin, names, standby)


def prune(store: Store, admin: Admin | None, names: Names, keep: int) -> Iterator[str]:
    """Unload all releases but the live one and its predecessor, and remove the oldest beyond `keep`.

    Yields a notice for each that is removed.
    """
    spared, kept = {names.release, store.predecessor(names.public)}, store.kept(names.public)
    loaded = admin.loaded() if admin else []
    for position, release in enumerate(kept):
        old = Names(names.public, release)
        if release in spared:
            continue
        if admin and old.candidate in loaded:
            admin.unload(old.candidate)
        if position >= keep:
            store.drop(old)
            yield f"{release} is no longer kept"
