"""A new release on trial: it gets a share of the real requests, as the live one does, until it can be judged.

`NAME_<new>_canary`, a router that runs inside Triton (router.py), replaces the live release's parts in the public
ensemble. The public name still stands for the live release, and every caller gets the answer of one of the two.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.releases import ledger
from serving.releases.proof import announced_server, prove
from serving.releases.store import Store
from serving.releases.trial import Figures, Trial, judge
from serving.triton import config as configs
from serving.triton import metrics
from serving.triton.admin import Admin
from serving.triton.names import Names
from serving.triton.repository import ENCODE_CODE, contract, golden
from serving.triton.wire import PROBE, REHEARSAL
from stages.core.errors import Misuse, Refused, UserError
from stages.core.progress import counting

CODE = Path(__file__).resolve().parents[2]
PREFIX = "millrace_canary_"  # of the router's metrics
POLL_S = 0.25  # between two checks
MISSES = 2  # checks in a row without an answer


def require(store: Store, admin: Admin | None, before: str | None, new: Names, exported: Path) -> None:
    """Check that a trial is possible.

    Raises:
        Misuse: no server is running, or no live release can be compared with the new one.
    """
    if before is None:
        raise Misuse(
            "canary-nothing-live",
            f"no release of {new.public} is live yet to compare a canary with: release it without a canary",
        )
    if before == new.release:
        raise Misuse("canary-already-live", f"{before} is live already: there is nothing to try")
    if admin is None:
        raise Misuse(
            "canary-no-server", "a canary needs requests, and no server is running: `millrace serve` starts one"
        )
    live, tried = contract(store.repository, Names(new.public, before)), contract(exported, new)
    if (live["outputs"], live["labels"]) != (tried["outputs"], tried["labels"]):
        raise Misuse(
            "canary-not-comparable",
            "a canary needs the live release's outputs and classes, and these differ: release it without one",
        )
    for name, tensor in live["inputs"].items():
        if tried["inputs"].get(name, tensor) != tensor:
            raise Misuse(
                "canary-not-comparable",
                f"a canary needs the live release's columns, and {name!r} differs: release it without one",
            )


def run(store: Store, admin: Admin, live: Names, new: Names, trial: Trial) -> Figures:
    """Run the trial of a release that is loaded and has proved itself on golden rows.

    Where it passes, the public name leads to the router afterwards.

    Raises:
        Refused: the release does not meet the conditions, or got too few requests. The live release answers as before.
    """
    with _interruption() as interrupted:
        ledger.append(store.ledger, "canary", name=new.public, release=new.release, live=live.release, **asdict(trial))
        try:
            begin(store, admin, live, new, trial)
            figures, reasons = watch(store, admin, live, new, trial, interrupted)
        except UserError as error:
            figures, reasons = Figures(), [str(error)]
        if not reasons:
            return figures
        if announced_server(store):
            end(store, admin, new)
        facts = {"figures": asdict(figures), "reasons": reasons}
        ledger.append(store.ledger, "withdrawn", name=new.public, release=new.release, live=live.release, **facts)
        raise Refused(
            "canary-withdrawn", f"{new.release} is withdrawn, {live.release} stays live: {'; '.join(reasons)}"
        )


def begin(store: Store, admin: Admin, live: Names, new: Names, trial: Trial) -> None:
    """Load the router and point the public name at it."""
    if live.candidate not in admin.loaded():
        admin.load(live.candidate)
    store.route(new, lambda folder: write(folder, store.repository, live, new, trial))
    admin.load(new.router)
    prove(admin, store, live, new.router)
    prove(admin, store, new, new.router, request_id=REHEARSAL)
    store.divert(new)
    admin.load(new.public)
    prove(admin, store, live, new.public)


def watch(
    store: Store, admin: Admin, live: Names, new: Names, trial: Trial, interrupted: threading.Event
) -> tuple[Figures, list[str]]:
    """Wait until the trial is decided. Returns its figures, and the reasons to withdraw the release, if any."""
    schema, rows = golden(store.repository, live)
    row = {column: values[:1] for column, values in rows.items()}
    deadline = time.monotonic() + trial.minutes * 60
    latest, misses = Figures(), 0
    with counting("pairs") as count:
        while True:
            if interrupted.wait(POLL_S):
                return latest, ["the command was ended"]
            try:
                for model in (new.public, new.candidate):
                    admin.answers(model, schema, row, max(1.0, trial.late_s))
                before, latest = latest, figures(store, new) or latest
                count(latest.pairs - before.pairs)
                misses = 0
            except UserError as error:
                misses += 1
                if misses == MISSES or not announced_server(store):
                    return latest, [str(error)]
                continue
            over = time.monotonic() > deadline
            reasons = judge(latest, trial, over)
            if reasons or over or latest.pairs >= trial.requests:
                return latest, reasons


def end(store: Store, admin: Admin | None, new: Names) -> None:
    """Point the public name at the live release again, and remove the router."""
    live = store.current(new.public)
    if live and store.diverted(new):
        store.switch(Names(new.public, live))
    if admin:
        admin.load(new.public)
        admin.unload(new.router)
        admin.wait_unloaded(new.router)  # its last requests need the release that is unloaded next
    store.unroute(new)


def under_way(store: Store, name: str) -> Iterator[tuple[str, str]]:
    """Describe the canary of a public name, if one is under way: a heading and a text for each line."""
    for new in store.routed() if store.repository.exists() else []:
        if new.public == name and store.diverted(new):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                settings, so_far = _settings(store, new), figures(store, new)
                kind = "shadow of" if settings["shadow"] else "canary on"
                share, pairs = settings["share"], settings["requests"]
                yield new.release, f"{kind} {share:.4g} of the requests, until {pairs:,} pairs"
                yield "so far", str(so_far or "unknown: the server does not answer")


def figures(store: Store, new: Names) -> Figures | None:
    """Read a trial's figures from the server's metrics; None where there are none."""
    server = store.announced()
    if server is None:
        return None
    begun = _settings(store, new)["begun"]
    values: dict[str, Any] = {
        sample.metric.removeprefix(PREFIX): sample.value
        for sample in metrics.read(server["metrics"])
        if sample.metric.startswith(PREFIX) and sample.labels.get("begun") == begun
    }
    if not values:
        return None
    for name in ("pairs", "failures"):
        values[name] = int(values.get(name, 0))
    return Figures(**values)


def write(folder: Path, repository: Path, live: Names, new: Names, trial: Trial) -> None:
    """Write the router to a new `folder`, with the public configuration that leads to it as `public.pbtxt`."""
    ensemble = configs.load(repository / live.candidate / configs.FILE)
    schema, _ = golden(repository, live)
    version = folder / "1"
    version.mkdir(parents=True)
    configs.dump(configs.routed_config(live.public, new.router, ensemble), folder / "public.pbtxt")
    router = configs.router_config(new.router, ensemble)
    for output in router.output:
        labels = repository / live.network / "1" / f"{output.name}{configs.LABELS_SUFFIX}"
        if labels.exists():
            shutil.copyfile(labels, version / labels.name)
            output.label_filename = f"1/{labels.name}"
    configs.dump(router, folder / configs.FILE)
    settings = {
        "public": live.public,
        "begun": datetime.now(UTC).isoformat(timespec="milliseconds"),  # Triton keeps the metrics of earlier trials
        "live": live.candidate,
        "new": new.candidate,
        "probe": PROBE,
        "rehearsal": REHEARSAL,
        "failures": int(trial.max_failures * trial.requests),  # after more, the router spares the new release
        "target": asdict(schema.target),
        "outputs": list(schema.outputs()),
        "identifiers": list(contract(repository, new)["identifiers"]),
    }
    (version / "canary.json").write_text(json.dumps({**asdict(trial), **settings}, indent=1), encoding="utf-8")
    shutil.copyfile(CODE / "serving/triton/backends/router.py", version / "model.py")
    for path in {*ENCODE_CODE, *_kinds()}:
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CODE / path, version / path)
    (version / "__pycache__").touch()  # a file: a folder that Python adds here would make Triton reload the model


def _settings(store: Store, new: Names) -> dict[str, Any]:
    """Read the settings of a router."""
    path = store.repository / new.router / "1" / "canary.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


def _kinds() -> list[str]:
    """Return the files of all kinds: the target's kind may use another one, and each is loaded only if needed."""
    return sorted(path.relative_to(CODE).as_posix() for path in (CODE / "stages/schema/kinds").glob("*.py"))


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set. They do nothing else while the block lasts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
