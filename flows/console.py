"""What the `millrace` command prints, and the commands that it starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import interrupts
from stages.core.children import Children, How
from stages.core.errors import Misuse

if TYPE_CHECKING:
    from serving.releases.store import Store
    from serving.releases.switch import Outcome

MOST_WARNINGS = 5  # of the validation that are repeated with a verdict


def share(text: str) -> float:
    """`5%` -> 0.05.

    Raises:
        Misuse: the text is not a percentage from 0 to 100.
    """
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not (text.endswith("%") and 0 < percent <= 100):
        raise Misuse(
            "option-invalid-share", f"--canary {text!r} is not a share of the requests: write it as 5%, up to 100%"
        )
    return percent / 100


def show_outcome(store: Store, name: str, outcome: Outcome) -> None:
    """Print which release is live, and what the release did."""
    starting = store.server() is not None
    waiting = "the starting server will serve it" if starting else "`millrace serve` starts the server"
    before = f", after {outcome.before}" if outcome.before not in (None, outcome.release) else ""
    where = f"answers{before}" if outcome.live else f"is ready{before}: {waiting}"
    print(f"{name}: release {outcome.release} {where}")
    for line in outcome.notices:
        print(f"  {line}")


def show_committed(root: Path, problem: str) -> None:
    """Warn if the commit of champion/ failed, or is on no branch. `problem`: why it failed, or ""."""
    from serving.releases import git_history

    if not problem and git_history.detached(root):
        print("HEAD is detached, so no branch has this commit: `git switch -c NAME` keeps it", file=sys.stderr)
    if problem:
        print(f"champion/ is set, but not committed ({problem}): commit champion and dvc.lock", file=sys.stderr)


def child(command: list[str], how: How = "spare") -> int:
    """Run a command on this terminal and return its exit code. It ends with this process, and with Ctrl-C."""
    with Children() as children, children.start(command, how=how, shown=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            children.end()
            process.wait()
    print("interrupted: the same command goes on from here", file=sys.stderr)
    sys.exit(interrupts.CODE)


def stamp(path: Path) -> int:
    """Return the time of a file's last change in nanoseconds, 0 if there is no file."""
    return path.stat().st_mtime_ns if path.exists() else 0


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def warn_again(report: Path) -> None:
    """Print the first warnings of the validation, `report`, which a pass does not take back."""
    warnings = read(report).get("warnings", [])
    for warning in warnings[:MOST_WARNINGS]:
        print(f"  data: {warning}")
    if len(warnings) > MOST_WARNINGS:
        print(f"  data: {len(warnings) - MOST_WARNINGS:,} more warnings: see {report.with_name('index.html')}")


def show(verdict: dict[str, Any]) -> None:
    """Print the verdict, and a line for each reason against the model."""
    print(f"{verdict['verdict']}: release {verdict['release']}")
    for criterion in verdict["criteria"]:
        if not criterion["holds"]:
            print(f"  {'for a person' if criterion['person'] else 'refused'}: {criterion['reason']}")
    if verdict["verdict"] == "needs a person":
        print("`millrace approve --by NAME --reason WHY` lets it be released")
