"""A person's approval of a release whose gate requires one. It holds for one release and the gate's reasons alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.releases import ledger
from serving.releases.store import Store
from serving.triton.names import Names
from stages.core.errors import Misuse
from stages.gating.verdict import PERSON

APPROVED = "approved"  # the ledger's event, and the verdict's key for the approval


def approve(store: Store, names: Names, verdict: Mapping[str, Any], by: str, reason: str) -> list[str]:
    """Record an approval, and return the gate's reasons that it accepts.

    Args:
        store: the releases on this host.
        names: the exported release.
        verdict: the gate's verdict on it.
        by: who approves.
        reason: why.

    Raises:
        Misuse: there is nothing to approve, or `by` or `reason` is blank.
    """
    release, outcome = names.release, verdict["verdict"]
    if verdict["release"] != release:
        raise Misuse(
            "verdict-outdated",
            f"the verdict is on {verdict['release']}, and {release} is exported: `millrace run` judges it",
        )
    if outcome != PERSON:
        instead = {"pass": "`millrace release` needs no approval"}.get(outcome, "see gate.approval in params.yaml")
        raise Misuse("approve-not-open", f"the verdict on {release} is {outcome!r}: {instead}")
    for option, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise Misuse("approve-blank", f"{option} is blank: an approval says who gives it, and why")
    reasons = _failed(verdict)
    with store.writing("an approval"):
        ledger.append(store.ledger, APPROVED, name=names.public, release=release, by=by, reason=reason, reasons=reasons)
    return reasons


def with_approval(store: Store, release: str, verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the verdict with the latest approval of this release that covers all failed criteria, if there is one."""
    for line in reversed(ledger.lines(store.ledger)):
        approved = line["event"] == APPROVED and line.get("release") == release == verdict.get("release")
        if approved and all(reason in line.get("reasons", ()) for reason in _failed(verdict)):
            return {**verdict, APPROVED: {key: line.get(key, "?") for key in ("time", "actor", "by", "reason")}}
    return verdict


def needed(verdict: Mapping[str, Any]) -> bool:
    """Whether the verdict requires an approval that it does not have."""
    return verdict.get("verdict") == PERSON and APPROVED not in verdict


def _failed(verdict: Mapping[str, Any]) -> list[str]:
    """Return the reasons of the criteria that do not hold."""
    return [criterion["reason"] for criterion in verdict.get("criteria", ()) if not criterion["holds"]]
