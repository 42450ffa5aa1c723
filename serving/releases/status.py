"""`millrace status`: the running server, the live releases and the last lines of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from typing import Any

from serving.releases import canary, git_history, ledger
from serving.releases.approval import APPROVED
from serving.releases.proof import announced_server
from serving.releases.store import Store
from serving.triton.admin import Successes, administered
from stages.core import lockfile
from stages.core.errors import UserError

LINES = 8  # of the ledger
WHY = 160  # characters of a line's reason
TIMEOUT_S = 2.0


def show(store: Store) -> None:
    """Print the status as tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    events = ledger.lines(store.ledger)
    server = announced_server(store)
    console.print(Text(f"server: {_server(store, server)}"))
    if store.folder.exists() and not store.free():
        console.print(
            Text(f"the disk of {store.folder} is full: nothing can be released, and the ledger is not written")
        )
    if not store.names():
        console.print("nothing is released yet: `millrace release` does that")
    for name in store.names():
        current = store.current(name) or ""
        successes = _successes(server["grpc"], name) if server else None
        table = Table(title=name, title_justify="left", show_header=False)
        for heading, text in (*_facts(store, events, name, current, successes), *canary.under_way(store, name)):
            table.add_row(heading, Text(text))
        console.print(table)
    table = Table(title="ledger, the last lines", title_justify="left")
    for heading in ("time", "event", "release", "by", "why"):
        table.add_column(heading)
    for line in events[-LINES:]:
        reason = line.get("override") or line.get("reason") or "; ".join(map(str, line.get("reasons", ())))
        by, why = line.get("by") or line["actor"], shorten(str(reason), WHY, placeholder=" …")
        table.add_row(line["time"], line["event"], str(line.get("release", "")), Text(str(by)), Text(why))
    console.print(table)


def show_unsettled(root: Path, store: Store) -> None:
    """Print why git does not know what is live, if it does not. The graph itself is not read."""
    for fault in lockfile.conflicts(root):
        print(f"not settled: {fault}")
    champion = root / "champion" / "manifest.json"
    content = champion.read_bytes() if champion.exists() else b""
    id = sha256(content).hexdigest()[:12] if content.strip() != b"{}" else None
    live = [store.current(name) for name in store.names()]
    if live and id not in live:
        print(f"not settled: champion/ has {id or 'no release'}, live is {', '.join(map(str, live))}: release it again")
    elif live and (uncommitted := git_history.uncommitted(root, "champion")):
        more = f" and {len(uncommitted) - 1} more" if len(uncommitted) > 1 else ""
        print(f"not settled: git has no commit of {uncommitted[0]}{more}: `git add champion` and `git commit`")


def _server(store: Store, server: dict[str, Any] | None) -> str:
    """Describe the server, given its announcement if it runs."""
    if server:
        return f"HTTP {server['http']}, gRPC {server['grpc']}"
    supervisor = store.server()
    return f"being started by process {supervisor}" if supervisor is not None else "none is running"


def _facts(
    store: Store, events: list[dict[str, Any]], name: str, current: str, successes: Successes | None
) -> Iterator[tuple[str, str]]:
    """Describe a live release: a heading and a text for each line."""
    promotions = (ledger.RELEASED, ledger.ROLLED_BACK)
    promoted = [line for line in events if line.get("release") == current and line["event"] in promotions]
    yield "release", current
    yield "live since", promoted[-1]["time"] if promoted else "?"
    with suppress(UserError):
        verdict = store.read(current, "verdict.json")
        yield "verdict", verdict["verdict"]
        if APPROVED in verdict:
            yield "approved", f"by {verdict[APPROVED]['by']}: {verdict[APPROVED]['reason']}"
    for fault in store.faults(current)[:3]:
        yield "fault", fault
    for line in promoted:
        if "override" in line:
            yield "released in spite of it", str(line["override"])
    if successes:
        yield "requests", f"{successes.requests:,}"
        yield "mean time", f"{successes.seconds / max(1, successes.requests) * 1000:.2f} ms"
    others = [release for release in store.kept(name) if release != current]
    yield "also kept", ", ".join(others) or "none"


def _successes(address: str, model: str) -> Successes | None:
    """Ask the server at HOST:PORT how many requests a model has answered; None where it does not report it."""
    with suppress(UserError), administered(address, key="") as server:
        return server.successes(model, TIMEOUT_S)
    return None
