"""What becomes live, and what stops being so. Killed at any moment, the next command finishes it or undoes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from serving.releases import approval, canary, champion, ledger
from serving.releases.proof import prove, running_server
from serving.releases.store import RESTORE, Store
from serving.triton import manifest as manifests
from serving.triton.admin import Admin, administered
from serving.triton.launcher import running
from serving.triton.manifest import Manifest
from serving.triton.names import Names
from serving.triton.repository import contract, contract_changes, golden
from stages.core.errors import Misuse, Refused, UserError
from stages.core.host import fingerprint
from stages.gating.verdict import PASS, PERSON

NEEDED = ("verdict", "manifest", "repository", "answers", "times", "statistics")  # the run's outputs, for a release


@dataclass(frozen=True)
class Candidate:
    """An exported model, the verdict on it, and what it answered to the golden rows when it was judged."""

    repository: Path
    manifest: Manifest
    verdict: Mapping[str, Any]
    golden: Mapping[str, Any]  # {output: [n, *shape]} as lists
    host: Mapping[str, Any] | None = None  # where it was timed; None where that does not matter
    statistics: str = "{}\n"  # of its data, as JSON; of a release that is older than these, none

    @property
    def names(self) -> Names:
        return Names(self.manifest.name, self.manifest.id)


@dataclass(frozen=True)
class Outcome:
    """What a command did. `live`: whether a server answers with it already."""

    release: str
    before: str | None
    live: bool
    told: tuple[str, ...] = ()


def release(
    root: Path,
    store: Store,
    candidate: Candidate,
    *,
    keep: int,
    override: str = "",
    breaking: bool = False,
    trial: canary.Trial | None = None,
) -> Outcome:
    """Let a candidate answer under its public name, on the strength of its verdict, and of a `trial` if there is one.

    Raises:
        Refused: the verdict is not for these bytes or not to pass, callers of the live model would break, or a trial
            has shown that they would be worse off.
        UserError: it does not load, or does not answer as it was judged. The old release goes on answering.
    """
    names = candidate.names
    candidate = replace(candidate, verdict=approval.with_approval(store, names.release, candidate.verdict))
    with store.writing("a release"), running_server(store) as admin:
        settle(root, store, admin)
        champion.catch_up(root, store)
        reasons = [] if override else objections(candidate)
        if reasons:
            ledger.append(store.ledger, "refused", name=names.public, release=names.release, reasons=reasons)
            raise Refused(f"{names.release} is not released: {'; '.join(reasons)}")
        before = store.current(names.public)
        if trial:
            canary.require(store, admin, before, names, candidate.repository)
        if before == names.release and not store.faults(before):
            overridden = ", and there is nothing to override" if override else ""
            return Outcome(names.release, before, admin is not None, (f"it is live already{overridden}",))
        if admin:
            _require_reader(store, candidate)
        warnings = _fits(store, candidate, before, breaking)
        _require_room(store, candidate.repository)
        store.add(candidate.repository, candidate.manifest, _known(candidate))
        facts: dict[str, Any] = {"before": before} | ({"override": override} if override else {})
        try:
            with _served(store, admin, names) as proving:
                prove(proving, store, names, names.candidate)
            if trial and admin and before:
                figures = canary.run(store, admin, Names(names.public, before), names, trial)
                facts["canary"] = asdict(figures)
                warnings.append(f"canary: {figures}")
        except UserError:
            settle(root, store, admin if canary.answers(store) else None)
            raise
        store.intend(ledger.RELEASED, names, facts)
        try:
            switch(store, admin, names, before)
            warnings += rehearse(store, admin, names, before)
        finally:
            settle(root, store, admin)
        told = [*warnings, *prune(store, admin, names, keep)]
        return Outcome(names.release, before, admin is not None, tuple(told))


def rollback(root: Path, store: Store, name: str, to: str | None, reason: str = "") -> Outcome:
    """Let an earlier release answer again, exactly as it did.

    Raises:
        UserError: there is no such release here, or its bytes are no longer what they were.
    """
    with store.writing("a rollback"), running_server(store) as admin:
        settle(root, store, admin)
        champion.catch_up(root, store)
        before, kept = store.current(name), store.kept(name)
        if before is None:
            raise UserError(f"nothing has been released as {name}: `millrace release` does that")
        to = to or store.predecessor(name)
        others = ", ".join(release for release in kept if release != before) or "none"
        if to is None:
            raise UserError(f"there is no earlier release than {before}; --to takes one of those kept: {others}")
        if to not in kept:
            raise UserError(f"there is no release {to} here; kept beside {before}: {others}. {RESTORE}")
        if to == before:
            return Outcome(to, before, admin is not None, ("it is live already",))
        faults = store.faults(to)
        if faults:
            raise UserError(f"release {to} is no longer what it was: {'; '.join(faults[:3])}")
        names = Names(name, to)
        if admin and names.candidate not in admin.loaded():
            admin.load(names.candidate)
        if admin:
            prove(admin, store, names, names.candidate)
        store.intend(ledger.ROLLED_BACK, names, {"before": before} | ({"reason": reason} if reason else {}))
        try:
            switch(store, admin, names, before)
        finally:
            settle(root, store, admin)
        return Outcome(to, before, admin is not None)


def switch(store: Store, admin: Admin | None, names: Names, before: str | None) -> None:
    """Point the public name at a release and see it answer; at the old one again where it does not.

    Raises:
        UserError: it did not answer as it should; the old release does.
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
    """Go back and return, before anybody has to in earnest. What would hinder that is told."""
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
    """Finish what became live, and undo what did not: the last act of every command, and the first of the next.

    Raises:
        UserError: the champion cannot be set; the next command tries again.
    """
    intended = store.intended()
    if intended and admin and store.current(intended["name"]):
        admin.load(intended["name"])
    if intended and store.current(intended["name"]) == intended["release"]:
        names = Names(intended["name"], intended["release"])
        champion.crown(root / "champion", store, names)
        if intended["event"] == ledger.RELEASED:
            store.made(names)
        facts = {key: value for key, value in intended.items() if key != "event"}
        ledger.append(store.ledger, intended["event"], **facts)
    store.settled()
    for names in store.routed():
        canary.end(store, admin, names)
    told = ledger.lines(store.ledger)
    for name in store.names():
        current = store.current(name)
        live = Names(name, ledger.live(told, name) or current or store.kept(name)[0])
        if not store.stands(live) and not store.faults(live.release):
            reinstate(store, admin, live, current)
    for names in store.strangers():
        if store.current(names.public) != names.release:
            if admin:
                admin.unload(names.candidate)
            store.drop(names)


def reinstate(store: Store, admin: Admin | None, names: Names, standby: str | None) -> None:
    """Let the live release answer again where another stands in for it; that one goes on where it cannot."""
    with suppress(UserError):
        if admin:
            admin.load(names.candidate)
            prove(admin, store, names, names.candidate)
        switch(store, admin, names, standby)


def prune(store: Store, admin: Admin | None, names: Names, keep: int) -> Iterator[str]:
    """Unload all but the live release and the one before it, and drop the oldest of them beyond `keep`."""
    spared, kept = {names.release, store.predecessor(names.public)}, store.kept(names.public)
    loaded = admin.loaded() if admin else []
    for place, old in enumerate(kept):
        standing = Names(names.public, old)
        if old in spared:
            continue
        if admin and standing.candidate in loaded:
            admin.unload(standing.candidate)
        if place >= keep:
            store.drop(standing)
            yield f"{old} is kept no longer"


def objections(candidate: Candidate) -> list[str]:
    """Why the verdict does not allow this release; a sentence each."""
    judged, outcome = candidate.verdict.get("release"), candidate.verdict.get("verdict")
    if judged != candidate.manifest.id:
        return [f"the verdict is on {judged}, and not on these bytes: `millrace run` judges them"]
    told = [criterion["reason"] for criterion in candidate.verdict.get("criteria", []) if not criterion["holds"]]
    if approval.needed(candidate.verdict):
        told.append("this is for a person to decide: `millrace approve --by NAME --reason WHY`")
    elif outcome == PERSON:
        told = []
    elif outcome != PASS and not told:
        told = [f"the verdict is {outcome!r}"]
    if candidate.host not in (None, fingerprint()):
        told.append("it was timed on another host: time it here by `dvc repro --single-item --force measure gate`")
    return told


@contextmanager
def _served(store: Store, admin: Admin | None, names: Names) -> Iterator[Admin]:
    """The candidate, loaded: by the server that is there, else by a private one for as long as the block lasts."""
    if admin is not None:
        try:
            admin.load(names.candidate)
            yield admin
        except UserError:
            if store.current(names.public) != names.release:
                with suppress(UserError):
                    admin.unload(names.candidate)
            raise
        return
    with (
        running(store.repository, [names.candidate], drain_s=0) as endpoint,
        administered(endpoint.grpc, endpoint.admin_key) as proving,
    ):
        yield proving


def _fits(store: Store, candidate: Candidate, before: str | None, breaking: bool) -> list[str]:
    """What callers will notice. Raises Refused where they would break."""
    if before is None:
        return []
    old, new = Names(candidate.manifest.name, before), candidate.names
    broken, noticed = contract_changes(contract(store.repository, old), contract(candidate.repository, new))
    if broken and not breaking:
        raise Refused(
            f"callers of {new.public} would break: {'; '.join(broken)}. Say --breaking, or give it another export.name"
        )
    return [*broken, *noticed]


def _require_reader(store: Store, candidate: Candidate) -> None:
    """Raise Misuse where the running server's keeper is of an earlier version, which would end at such answers."""
    readable = (store.announced() or {}).get("identifiers", ["release"])
    if not contract(candidate.repository, candidate.names)["identifiers"].keys() <= set(readable):
        raise Misuse(
            "the running `millrace serve` is of an earlier version, which cannot read this release's answers: end it,"
            " and start it again"
        )


def _require_room(store: Store, exported: Path) -> None:
    needed = sum(path.stat().st_size for path in exported.rglob("*") if path.is_file())
    free = shutil.disk_usage(store.folder).free
    if free < 2 * needed:
        raise UserError(f"{store.folder} has {free:,} bytes left, and a release needs {2 * needed:,}: free some space")


def _known(candidate: Candidate) -> dict[str, str]:
    return {
        "verdict.json": json.dumps(dict(candidate.verdict), indent=1) + "\n",
        "golden.json": json.dumps(dict(candidate.golden)) + "\n",
        "statistics.json": candidate.statistics,
    }


def exported(paths: Mapping[str, Path]) -> Candidate:
    """The candidate of the last run.

    Raises:
        Misuse: there is none.
        UserError: its bytes are not its manifest's.
    """
    if not all(paths[name].exists() for name in NEEDED):
        raise Misuse("there is no verdict yet on what is here: `millrace run` gives one")
    made = manifests.load(paths["manifest"])
    manifests.check(paths["repository"], made)
    _, raw = golden(paths["repository"], Names(made.name, made.id))
    rows = len(next(iter(raw.values())))
    with np.load(paths["answers"] / "answers.npz", allow_pickle=False) as answers:
        first = {output: answers[output][:rows].tolist() for output in answers.files}
    timed = _read(paths["times"])
    host = timed["host"] if timed["release"] == made.id else {}
    statistics = paths["statistics"].read_text(encoding="utf-8")
    return Candidate(paths["repository"], made, _read(paths["verdict"]), first, host, statistics)


def from_champion(root: Path) -> Candidate:
    """What git and DVC say is released: no more is asked of it here than that it answers as it did there.

    Raises:
        UserError: it is not here, or its bytes are not its manifest's.
    """
    folder = root / "champion"
    if _read(folder / "manifest.json") == {}:
        raise Misuse(
            "git knows of no released model: `millrace release` on the host that trains, commit, and pull here"
        )
    if not (folder / "repository").exists():
        raise Misuse("the released model's bytes are not here: `dvc pull champion/repository.dvc`")
    made = manifests.load(folder / "manifest.json")
    manifests.check(folder / "repository", made)
    released = Candidate(folder / "repository", made, _read(folder / "verdict.json"), _read(folder / "golden.json"))
    statistics = folder / "statistics.json"
    return replace(released, statistics=statistics.read_text(encoding="utf-8")) if statistics.exists() else released


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
