"""A release on trial: a share of real requests is put to it and to the live one, until it is known which is to answer.

`NAME_<new>_canary`, a router that runs inside Triton (router.py), takes the place of the live release's parts in the
public ensemble. The public name goes on standing for the live release, and every caller gets an answer of one of both.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.releases import ledger
from serving.releases.proof import prove
from serving.releases.store import Store
from serving.triton.admin import Admin, is_server
from serving.triton.names import Names
from serving.triton.repository import contract, golden
from serving.triton.wire import PROBE, REHEARSAL
from stages.core.command import counting
from stages.core.errors import Misuse, Refused, UserError

CODE = Path(__file__).resolve().parents[2]
LOOK_S = 0.25  # between two looks at the figures
MISSES = 2  # looks in a row without an answer


@dataclass(frozen=True)
class Trial:
    """How much is put to a new release, for how long, and what it must hold to."""

    share: float  # of the requests
    shadow: bool  # whether callers get the live release's answers alone
    requests: int  # that both must have answered
    minutes: float  # that it may take
    late_s: float  # after which the new release counts as failed, and the live one's answer is taken
    max_failures: float  # share of them
    max_latency_ratio: float  # of the new release's median time to the live one's
    max_disagreement: float  # share of them


@dataclass(frozen=True)
class Figures:
    """What a trial has shown; a pair is a request that both releases were asked. Times in seconds."""

    pairs: int = 0
    failures: int = 0
    disagreements: float = 0.0
    live_p50_s: float = 0.0
    live_p99_s: float = 0.0
    new_p50_s: float = 0.0
    new_p99_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.pairs:,} pairs, {self.failures:,} failed, {self.disagreements:.4g} answered otherwise; median"
            f" {self.new_p50_s * 1000:.2f} ms against {self.live_p50_s * 1000:.2f} ms, p99"
            f" {self.new_p99_s * 1000:.2f} ms against {self.live_p99_s * 1000:.2f} ms"
        )


def require(store: Store, admin: Admin | None, before: str | None, new: Names, exported: Path) -> None:
    """Raises Misuse where there is nothing to try a release on, or to compare it with."""
    if before is None:
        raise Misuse(f"nothing answers as {new.public} yet that a canary could be compared with: release it without")
    if before == new.release:
        raise Misuse(f"{before} is live already: there is nothing to try")
    if admin is None:
        raise Misuse("a canary needs requests, and no server is running: `millrace serve` starts it")
    live, tried = contract(store.repository, Names(new.public, before)), contract(exported, new)
    if (live["outputs"], live["labels"]) != (tried["outputs"], tried["labels"]):
        raise Misuse("a canary's answers must be of one form, and these have other outputs or labels: release without")
    for name, tensor in live["inputs"].items():
        if tried["inputs"].get(name, tensor) != tensor:
            raise Misuse(f"a canary must take the same columns, and {name!r} is another: release it without")


def run(store: Store, admin: Admin, live: Names, new: Names, trial: Trial) -> Figures:
    """Try a release that is loaded and has proved itself on golden rows; the public name leads to a router afterwards.

    Raises:
        Refused: it did not hold to what it must, or was not asked enough. The live release answers as before.
        UserError: the trial could not begin.
    """
    with _ended() as ended:
        ledger.append(store.ledger, "canary", name=new.public, release=new.release, live=live.release, **asdict(trial))
        try:
            begin(store, admin, live, new, trial)
            figures, reasons = watch(store, admin, live, new, trial, ended)
        except UserError as error:
            figures, reasons = Figures(), [str(error)]
        if not reasons:
            return figures
        reachable = answers(store)
        if reachable:
            end(store, admin, new)
        facts = {"figures": asdict(figures), "reasons": reasons}
        ledger.append(store.ledger, "withdrawn", name=new.public, release=new.release, live=live.release, **facts)
        raise Refused(f"{new.release} is withdrawn, {live.release} answers: {'; '.join(reasons)}")


def begin(store: Store, admin: Admin, live: Names, new: Names, trial: Trial) -> None:
    """Load the router, and let the public name lead to it."""
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
    store: Store, admin: Admin, live: Names, new: Names, trial: Trial, ended: threading.Event
) -> tuple[Figures, list[str]]:
    """Look at the figures until it is known what they say: the figures, and why the release is withdrawn, if it is."""
    schema, rows = golden(store.repository, live)
    row = {column: values[:1] for column, values in rows.items()}
    deadline = time.monotonic() + trial.minutes * 60
    figures, misses = Figures(), 0
    with counting("pairs") as count:
        while True:
            if ended.wait(LOOK_S):
                return figures, ["the command was ended"]
            try:
                for model in (new.public, new.candidate):
                    admin.answers(model, schema, row, max(1.0, trial.late_s))
                before, figures = figures, told(store, new) or figures
                count(figures.pairs - before.pairs)
                misses = 0
            except UserError as error:
                misses += 1
                if misses == MISSES or not answers(store):
                    return figures, [str(error)]
                continue
            over = time.monotonic() > deadline
            reasons = judge(figures, trial, over)
            if reasons or over or figures.pairs >= trial.requests:
                return figures, reasons


def judge(figures: Figures, trial: Trial, over: bool) -> list[str]:
    """Why a release must be withdrawn, as sentences; none while it may still hold to all. `over`: no time is left."""
    reasons = []
    planned = max(trial.requests, figures.pairs)
    for count, most, what in (
        (figures.failures, trial.max_failures, "failed or came late"),
        (figures.disagreements, trial.max_disagreement, "were answered otherwise"),
    ):
        if count > most * planned + 1e-9:
            reasons.append(
                f"{count:.4g} of {figures.pairs:,} requests {what}; of {planned:,} at most {most * planned:.4g} may"
            )
    if over and figures.pairs < trial.requests:
        reasons.append(
            f"both were asked {figures.pairs:,} requests within {trial.minutes:g} minutes, which is too few to tell:"
            f" it takes {trial.requests:,}"
        )
    elif figures.pairs >= trial.requests and figures.new_p50_s > trial.max_latency_ratio * figures.live_p50_s:
        reasons.append(
            f"its median answer takes {figures.new_p50_s * 1000:.2f} ms against {figures.live_p50_s * 1000:.2f} ms,"
            f" {figures.new_p50_s / figures.live_p50_s:.2f} times as long; {trial.max_latency_ratio:g} times it may"
        )
    return reasons


def end(store: Store, admin: Admin | None, new: Names) -> None:
    """Lead the public name past the router, to the release that it stands for, and remove the router."""
    live = store.current(new.public)
    if live and store.diverted(new):
        store.switch(Names(new.public, live))
    if admin:
        admin.load(new.public)
        admin.unload(new.router)
        admin.wait_unloaded(new.router)  # what it is still asking, it asks the release that is unloaded next
    store.unroute(new)


def answers(store: Store) -> bool:
    """Whether the server is still there."""
    server = store.announced()
    return server is not None and is_server(server["http"], server["identity"])


def under_way(store: Store, name: str) -> Iterator[tuple[str, str]]:
    """What is known of a canary of this public name, for people."""
    for new in store.routed() if store.repository.exists() else []:
        if new.public == name and store.diverted(new):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                how, figures = _how(store, new), told(store, new)
                to = "shadow of" if how["shadow"] else "canary on"
                yield new.release, f"{to} {how['share']:.4g} of the requests, until {how['requests']:,} pairs"
                yield "so far", str(figures or "nothing is known: the server does not answer")


def told(store: Store, new: Names) -> Figures | None:
    """The figures that the router shows among the server's metrics; None where there are none."""
    server = store.announced()
    if server is None:
        return None
    host, _, port = server["metrics"].partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    begun = re.escape(_how(store, new)["begun"])
    lines = re.findall(rf'^millrace_canary_(\w+){{[^}}]*begun="{begun}"[^}}]*}} (\S+)$', text, re.M)
    found: dict[str, Any] = {name: float(value) for name, value in lines}
    for name in ("pairs", "failures"):
        found[name] = int(found.get(name, 0))
    return Figures(**found) if lines else None


def write(folder: Path, repository: Path, live: Names, new: Names, trial: Trial) -> None:
    """Write the router to a new `folder`, and as `public.pbtxt` in it the public configuration that leads to it."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    def dump(config: Any, path: Path) -> None:
        path.write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")

    text = (repository / live.candidate / "config.pbtxt").read_text(encoding="utf-8")
    ensemble = text_format.Parse(text, model_config_pb2.ModelConfig())
    schema, _ = golden(repository, live)
    version = folder / "1"
    version.mkdir(parents=True)

    public = model_config_pb2.ModelConfig()
    public.CopyFrom(ensemble)
    public.name = live.public
    public.parameters["live"].string_value = live.candidate
    del public.ensemble_scheduling.step[:]
    step = public.ensemble_scheduling.step.add(model_name=new.router, model_version=-1)
    step.input_map.update({each.name: each.name for each in ensemble.input})
    step.output_map.update({each.name: each.name for each in ensemble.output})
    dump(public, folder / "public.pbtxt")

    router = model_config_pb2.ModelConfig(name=new.router, max_batch_size=ensemble.max_batch_size, backend="python")
    router.input.extend(ensemble.input)
    router.output.extend(ensemble.output)
    for output in router.output:
        labels = repository / live.network / "1" / f"{output.name}.labels.txt"
        if labels.exists():
            shutil.copyfile(labels, version / labels.name)
            output.label_filename = f"1/{labels.name}"
    router.instance_group.add(count=1, kind="KIND_CPU")
    router.dynamic_batching.SetInParent()
    dump(router, folder / "config.pbtxt")

    how = {
        "public": live.public,
        "begun": datetime.now(UTC).isoformat(timespec="milliseconds"),  # Triton keeps the metrics of earlier trials
        "live": live.candidate,
        "new": new.candidate,
        "probe": PROBE,
        "rehearsal": REHEARSAL,
        "failures": int(trial.max_failures * trial.requests),  # more, and it asks the new release no more
        "target": asdict(schema.target),
        "outputs": list(schema.outputs()),
        "identifiers": list(contract(repository, new)["identifiers"]),
    }
    (version / "canary.json").write_text(json.dumps({**asdict(trial), **how}, indent=1), encoding="utf-8")
    shutil.copyfile(CODE / "serving/triton/backends/router.py", version / "model.py")
    for path in (
        "stages/__init__.py",
        "stages/schema/__init__.py",
        *(f"stages/schema/kinds/{one.name}" for one in _kinds()),
    ):
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CODE / path, version / path)
    (version / "__pycache__").touch()  # a file of this name keeps Triton from making the folder and reloading for it


def _how(store: Store, new: Names) -> dict[str, Any]:
    """What a router was told."""
    told: dict[str, Any] = json.loads((store.repository / new.router / "1" / "canary.json").read_text(encoding="utf-8"))
    return told


def _kinds() -> list[Path]:
    """All of them: a target's kind may build on another, and none is read that is not asked for."""
    return sorted((CODE / "stages/schema/kinds").glob("*.py"))


@contextmanager
def _ended() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM, which do nothing else while the block lasts."""
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
