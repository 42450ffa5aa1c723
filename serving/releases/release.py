"""Release a candidate: check its verdict, load and prove it, try it on real requests if wanted, and make it live."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from serving.releases import approval, canary, champion, ledger
from serving.releases.candidate import Candidate
from serving.releases.proof import announced_server, prove, running_server
from serving.releases.store import Store
from serving.releases.switch import Outcome, prune, rehearse, settle, switch
from serving.releases.trial import Trial
from serving.triton.admin import Admin, administered
from serving.triton.launcher import running
from serving.triton.names import Names
from serving.triton.repository import contract, contract_changes
from stages.core.errors import Misuse, Refused, UserError
from stages.core.host import fingerprint
from stages.gating.verdict import PASS, PERSON


def release(
    root: Path,
    store: Store,
    candidate: Candidate,
    *,
    keep: int,
    override: str = "",
    breaking: bool = False,
    trial: Trial | None = None,
) -> Outcome:
    """Make a candidate live under its public name, if its verdict and its trial allow it.

    Args:
        root: the project's folder.
        store: the releases on this host.
        candidate: what to release.
        keep: how many releases to keep.
        override: the reason to release in spite of the verdict, if there is one.
        breaking: whether the candidate may break callers of the live release.
        trial: the canary to run first, if any.

    Raises:
        Refused: the verdict is for other files or is not to pass, callers of the live model would break, or the trial
            has failed.
        UserError: the candidate does not load, or does not answer as it was judged. The old release goes on answering.
    """
    names = candidate.names
    candidate = replace(candidate, verdict=approval.with_approval(store, names.release, candidate.verdict))
    with store.writing("a release"), running_server(store) as admin:
        settle(root, store, admin)
        champion.catch_up(root, store)
        reasons = [] if override else objections(candidate)
        if reasons:
            ledger.append(store.ledger, "refused", name=names.public, release=names.release, reasons=reasons)
            raise Refused("release-refused", f"{names.release} is not released: {'; '.join(reasons)}")
        before = store.current(names.public)
        if trial:
            canary.require(store, admin, before, names, candidate.repository)
        if before == names.release and not store.faults(before):
            overridden = ", and there is nothing to override" if override else ""
            return Outcome(names.release, before, admin is not None, (f"it is live already{overridden}",))
        if admin:
            _require_current_server(store, candidate)
        notices = _compare_contracts(store, candidate, before, breaking)
        _require_space(store, candidate.repository)
        store.add(candidate.repository, candidate.manifest, _record(candidate))
        facts: dict[str, Any] = {"before": before} | ({"override": override} if override else {})
        try:
            with _loaded(store, admin, names) as proving:
                prove(proving, store, names, names.candidate)
            if trial and admin and before:
                figures = canary.run(store, admin, Names(names.public, before), names, trial)
                facts["canary"] = asdict(figures)
                notices.append(f"canary: {figures}")
        except UserError:
            settle(root, store, admin if announced_server(store) else None)
            raise
        store.intend(ledger.RELEASED, names, facts)
        try:
            switch(store, admin, names, before)
            notices += rehearse(store, admin, names, before)
        finally:
            settle(root, store, admin)
        notices += prune(store, admin, names, keep)
        return Outcome(names.release, before, admin is not None, tuple(notices))


def objections(candidate: Candidate) -> list[str]:
    """List the reasons why the verdict does not allow this release, as sentences."""
    judged, outcome = candidate.verdict.get("release"), candidate.verdict.get("verdict")
    if judged != candidate.manifest.id:
        return [f"the verdict is on {judged}, and not on these files: `millrace run` judges them"]
    reasons = [criterion["reason"] for criterion in candidate.verdict.get("criteria", []) if not criterion["holds"]]
    if approval.needed(candidate.verdict):
        reasons.append("a person must decide this: `millrace approve --by NAME --reason WHY`")
    elif outcome == PERSON:
        reasons = []
    elif outcome != PASS and not reasons:
        reasons = [f"the verdict is {outcome!r}"]
    if candidate.host not in (None, fingerprint()):
        reasons.append("it was timed on another host: time it here with `dvc repro --single-item --force measure gate`")
    return reasons


@contextmanager
def _loaded(store: Store, admin: Admin | None, names: Names) -> Iterator[Admin]:
    """Load the candidate: on the running server, else on a private one for as long as the block lasts."""
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


def _compare_contracts(store: Store, candidate: Candidate, before: str | None, breaking: bool) -> list[str]:
    """List the changes that callers will notice.

    Raises:
        Refused: callers would break, and `breaking` does not allow it.
    """
    if before is None:
        return []
    old, new = Names(candidate.manifest.name, before), candidate.names
    broken, noticed = contract_changes(contract(store.repository, old), contract(candidate.repository, new))
    if broken and not breaking:
        raise Refused(
            "release-breaks-callers",
            f"callers of {new.public} would break: {'; '.join(broken)}. Add --breaking, or set another export.name",
        )
    return [*broken, *noticed]


def _require_current_server(store: Store, candidate: Candidate) -> None:
    """Check that the running `millrace serve` can read the candidate's answers.

    Raises:
        Misuse: it cannot, because it is of an earlier version.
    """
    readable = (store.announced() or {}).get("identifiers", ["release"])
    if not contract(candidate.repository, candidate.names)["identifiers"].keys() <= set(readable):
        raise Misuse(
            "server-outdated",
            "the running `millrace serve` is of an earlier version, which cannot read this release's answers: end it,"
            " and start it again",
        )


def _require_space(store: Store, exported: Path) -> None:
    needed = sum(path.stat().st_size for path in exported.rglob("*") if path.is_file())
    free = shutil.disk_usage(store.folder).free
    if free < 2 * needed:
        raise UserError(
            "disk-full", f"{store.folder} has {free:,} bytes left, and a release needs {2 * needed:,}: free some space"
        )


def _record(candidate: Candidate) -> dict[str, str]:
    """Return the files of a release's record, besides its manifest."""
    return {
        "verdict.json": json.dumps(dict(candidate.verdict), indent=1) + "\n",
        "golden.json": json.dumps(dict(candidate.golden)) + "\n",
        "statistics.json": candidate.statistics,
    }
