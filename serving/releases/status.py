"""What answers now, and how it came to that: `millrace status`."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from typing import Any

from serving.releases import canary, ledger
from serving.releases import git_history as history
from serving.releases.approval import APPROVED
from serving.releases.store import Store
from serving.triton.admin import is_server
from stages.core import lockfile
from stages.core.errors import UserError

LINES = 8  # of the ledger
WHY = 160  # letters of a line's reason


def show(store: Store) -> None:
    """Print it as tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    told = ledger.lines(store.ledger)
    server = store.announced()
    up = server is not None and is_server(server["http"], server["identity"])
    console.print(Text(f"server: {_server(store, server if up else None)}"))
    if store.folder.exists() and not store.free():
        console.print(Text(f"the disk of {store.folder} is full: nothing can be released, and the ledger waits"))
    if not store.names():
        console.print("nothing is released yet: `millrace release` does that")
    for name in store.names():
        current = store.current(name) or ""
        counted = _counted(server["metrics"], name) if up and server else {}
        table = Table(title=name, title_justify="left", show_header=False)
        for what, said in (*_facts(store, told, name, current, counted), *canary.under_way(store, name)):
            table.add_row(what, Text(said))
        console.print(table)
    history = Table(title="ledger, the last lines", title_justify="left")
    for heading in ("time", "event", "release", "by", "why"):
        history.add_column(heading)
    for line in told[-LINES:]:
        why = line.get("override") or line.get("reason") or "; ".join(map(str, line.get("reasons", ())))
        by = line.get("by") or line["actor"]
        told_why = Text(shorten(str(why), WHY, placeholder=" …"))
        history.add_row(line["time"], line["event"], str(line.get("release", "")), Text(str(by)), told_why)
    console.print(history)


def show_unsettled(root: Path, store: Store) -> None:
    """What keeps git and the graph from saying what is live, if anything does. The graph itself is not read."""
    for fault in lockfile.conflicts(root):
        print(f"not settled: {fault}")
    champion = root / "champion" / "manifest.json"
    content = champion.read_bytes() if champion.exists() else b""
    id = sha256(content).hexdigest()[:12] if content.strip() != b"{}" else None
    live = [store.current(name) for name in store.names()]
    if live and id not in live:
        print(f"not settled: champion/ has {id or 'no release'}, live is {', '.join(map(str, live))}: release it again")
    elif live and (waiting := history.uncommitted(root, "champion")):
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        print(f"not settled: git has no commit of {waiting[0]}{more}: `git add champion` and `git commit`")


def _server(store: Store, server: dict[str, Any] | None) -> str:
    """Where it is."""
    if server:
        return f"HTTP {server['http']}, gRPC {server['grpc']}"
    keeper = store.server()
    return f"being started by process {keeper}" if keeper is not None else "none is running"


def _facts(
    store: Store, told: list[dict[str, Any]], name: str, current: str, counted: dict[str, float]
) -> Iterator[tuple[str, str]]:
    """What is known of a live release."""
    promotions = (ledger.RELEASED, ledger.ROLLED_BACK)
    own = [line for line in told if line.get("release") == current and line["event"] in promotions]
    yield "release", current
    yield "live since", own[-1]["time"] if own else "?"
    with suppress(UserError):
        verdict = store.read(current, "verdict.json")
        yield "verdict", verdict["verdict"]
        if APPROVED in verdict:
            yield "approved", f"by {verdict[APPROVED]['by']}: {verdict[APPROVED]['reason']}"
    for fault in store.faults(current)[:3]:
        yield "fault", fault
    for line in own:
        if "override" in line:
            yield "released in spite of it", str(line["override"])
    if counted:
        yield "requests", f"{counted['requests']:,.0f}"
        yield "mean time", f"{counted['us'] / max(1, counted['requests']) / 1000:.2f} ms"
    others = [release for release in store.kept(name) if release != current]
    yield "kept beside it", ", ".join(others) or "none"


def _counted(address: str, model: str) -> dict[str, float]:
    """Requests answered and microseconds spent on them, of one model since the server began."""
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()

    def total(metric: str) -> float:
        found = re.findall(rf'^{metric}{{model="{re.escape(model)}",[^}}]*}} (\S+)$', text, re.MULTILINE)
        return sum(map(float, found))

    return {"requests": total("nv_inference_request_success"), "us": total("nv_inference_request_duration_us")}
