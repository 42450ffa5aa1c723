"""Return to an earlier release, which then answers exactly as it did before."""

from __future__ import annotations

from pathlib import Path

from serving.releases import champion, ledger
from serving.releases.proof import prove, running_server
from serving.releases.store import RESTORE, Store
from serving.releases.switch import Outcome, settle, switch
from serving.triton.names import Names
from stages.core.errors import UserError


def rollback(root: Path, store: Store, name: str, to: str | None, reason: str = "") -> Outcome:
    """Make an earlier release live again.

    Args:
        root: the project's folder.
        store: the releases on this host.
        name: the public name.
        to: the release's id; None for the one before the live release.
        reason: the reason, for the ledger.

    Raises:
        UserError: there is no such release here, or its files were altered.
    """
    with store.writing("a rollback"), running_server(store) as admin:
        settle(root, store, admin)
        champion.catch_up(root, store)
        before, kept = store.current(name), store.kept(name)
        if before is None:
            raise UserError("release-none", f"nothing has been released as {name}: `millrace release` does that")
        to = to or store.predecessor(name)
        others = ", ".join(release for release in kept if release != before) or "none"
        if to is None:
            raise UserError(
                "release-no-earlier",
                f"there is no earlier release than {before}; --to takes one of those kept: {others}",
            )
        if to not in kept:
            raise UserError(
                "release-not-kept", f"there is no release {to} here; kept besides {before}: {others}. {RESTORE}"
            )
        if to == before:
            return Outcome(to, before, admin is not None, ("it is live already",))
        faults = store.faults(to)
        if faults:
            altered = f"the files of release {to} were altered: {'; '.join(faults[:3])}"
            raise UserError("release-altered", f"{altered}: {RESTORE}")
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
