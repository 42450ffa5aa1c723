"""A person's word for a release whose gate asks for one: bound to its id, and to the reasons that the gate gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.releases import ledger
from serving.releases.store import Store
from serving.triton.names import Names
from stages.core.errors import Misuse
from stages.gating.verdict import PERSON

APPROVED = "approved"  # the event, and the verdict's key under which it travels with the release


def approve(store: Store, names: Names, verdict: Mapping[str, Any], by: str, reason: str) -> list[str]:
    """Record that somebody answers for what does not hold; the reasons that the gate gave.

    Raises:
        Misuse: there is nothing to approve, or nobody who does.
    """
    release, outcome = names.release, verdict["verdict"]
    if verdict["release"] != release:
        raise Misuse(f"the verdict is on {verdict['release']}, and {release} is exported: `millrace run` judges it")
    if outcome != PERSON:
        instead = {"pass": "`millrace release` needs no approval"}.get(outcome, "see gate.approval in params.yaml")
        raise Misuse(f"the verdict on {release} is {outcome!r}: {instead}")
    for option, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise Misuse(f"{option} is blank: an approval says who gives it, and why")
    reasons = _open(verdict)
    with store.writing("an approval"):
        ledger.append(store.ledger, APPROVED, name=names.public, release=release, by=by, reason=reason, reasons=reasons)
    return reasons


def with_approval(store: Store, release: str, verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    """The verdict, and under `approved` the latest approval of this release, if it is of all that does not hold."""
    for line in reversed(ledger.lines(store.ledger)):
        approved = line["event"] == APPROVED and line.get("release") == release == verdict.get("release")
        if approved and all(reason in line.get("reasons", ()) for reason in _open(verdict)):
            return {**verdict, APPROVED: {key: line.get(key, "?") for key in ("time", "actor", "by", "reason")}}
    return verdict


def needed(verdict: Mapping[str, Any]) -> bool:
    """Whether a person has still to say yes."""
    return verdict.get("verdict") == PERSON and APPROVED not in verdict


def _open(verdict: Mapping[str, Any]) -> list[str]:
    return [each["reason"] for each in verdict.get("criteria", ()) if not each["holds"]]
