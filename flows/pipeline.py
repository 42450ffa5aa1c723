"""The graph of dvc.yaml under Prefect: a task for each stage, DVC does the work and the caching."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import argparse
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")  # read while Prefect is imported
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from ruamel.yaml import YAML

from flows.artifacts import publish, publish_card, read_json
from flows.report import page as report
from stages.core import inputs, interrupts, lockfile
from stages.core.children import Children, loopback_direct
from stages.core.command import holding, protect_printing
from stages.core.errors import NeedsPerson, Refused, UserError

os.environ.update(loopback_direct())  # read whenever Prefect opens a connection

GRAPH = Path("dvc.yaml")
ONE_RUN = Path(".dvc/tmp/millrace.lock")
REFUSED = 3  # a stage's exit code that says so
OPEN = "NeedsPerson"  # the name of a run's state where somebody has to decide
ENDS = {"Refused": Refused.code, OPEN: NeedsPerson.code}  # our own exit code, by the state's name

_RETRIES = 2
_RETRY_DELAYS_S = (2, 5)
_POLL_S = 2
_SERVER_START_S = 120
_TAIL = 200  # lines of a stage that are kept to tell why it failed
_HINTS = ("To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push`")
_PASSING = (  # what may be otherwise in a moment, in DVC's words and the launcher's
    "is busy, it is being blocked by",
    "Unable to acquire lock",
    "Unable to read RWLock-file",
    "tritonserver is not ready after",
)


@dataclass(frozen=True)
class Stage:
    """A node of DVC's graph. `alone`: its `meta` in dvc.yaml says `alone: true`, nothing may run beside it."""

    name: str
    after: tuple[str, ...]
    outs: tuple[str, ...]
    alone: bool = False


@flow(name="millrace", task_runner=ThreadPoolTaskRunner())
def pipeline() -> State[Any]:
    """Run what changed in the current folder's dvc.yaml; publish metrics, plots and verdict."""
    try:
        lockfile.check_conflicts()
        for mended in lockfile.recover(Path()):
            get_run_logger().warning(mended)
        stages = plan()
        with holding(ONE_RUN, "a run"):
            states = drive(stages)
        if any(state.is_cancelled() for state in states.values()):
            return Cancelled(message="cancelled; the next run goes on from here")
        paths = declared_paths()
        check_conflicts = [stage for stage in stages if states[stage.name].name in ("Completed", "Refused")]
        publish(paths, {out for stage in check_conflicts for out in stage.outs})
        state = conclude(states, paths)
        if state.is_completed() and "verdict" in paths:
            tell(paths)
        return state
    except UserError as error:
        return Failed(message=str(error))


def plan() -> list[Stage]:
    """The stages in the order in which `dvc repro` takes them, resolved by DVC.

    Raises:
        UserError: there is no graph here, or DVC cannot read it.
    """
    # DVC's own plan and not `dvc dag`, which has the edges but not the order, and repro writes dvc.lock in that order.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    if not GRAPH.is_file():
        raise UserError(f"there is no {GRAPH} here: run this in the project's folder")
    try:
        with Repo() as repo:
            graph = get_active_graph(repo.index.graph)
            stages = plan_repro(graph, repo.stage.collect(str(GRAPH)))
            return [
                Stage(
                    stage.addressing,
                    tuple(upstream.addressing for upstream in graph.successors(stage)),
                    tuple(out.def_path for out in stage.outs),
                    bool((stage.meta or {}).get("alone")),
                )
                for stage in stages
            ]
    except DvcException as error:
        raise UserError(f"{GRAPH}: {' '.join(str(error).split())}: `dvc dag` says where") from error


def waits(stages: Sequence[Stage]) -> dict[str, list[str]]:
    """For each stage those that must end before it: its upstream, and more where a stage must run alone."""
    found: dict[str, list[str]] = {}
    alone: list[str] = []
    for stage in stages:
        found[stage.name] = list(found) if stage.alone else [*dict.fromkeys([*stage.after, *alone])]
        if stage.alone:
            alone = [stage.name]
    return found


def drive(stages: Sequence[Stage]) -> dict[str, State[Any]]:
    """Run every stage as soon as those before it have ended well; give the state of each."""
    recorded = entries()
    try:
        with Children() as children, get_client(sync_client=True) as client:
            ended: SimpleQueue[str] = SimpleQueue()
            futures = submit(waits(stages), children, ended)
            return watch(futures, ended, children, client)
    finally:
        arrange(recorded, [stage.name for stage in stages])


def submit(
    before: Mapping[str, Sequence[str]], children: Children, ended: SimpleQueue[str]
) -> dict[str, PrefectFuture[Any]]:
    """A task for each stage; its name is put into `ended` when it is over."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for name, others in before.items():
        named = run_stage.with_options(name=name, task_run_name=name)
        futures[name] = named.submit(name, children, wait_for=[futures[other] for other in others])
        futures[name].add_done_callback(lambda _, name=name: ended.put(name))
    return futures


def watch(
    futures: Mapping[str, PrefectFuture[Any]], ended: SimpleQueue[str], children: Children, client: Any
) -> dict[str, State[Any]]:
    """Say how far the run is until all is over; end it where someone cancels it."""
    log = get_run_logger()
    states: dict[str, State[Any]] = {}
    while len(states) < len(futures):
        try:
            name = ended.get(timeout=_POLL_S)
        except Empty:
            if not children.ended and cancelled(client):
                log.info("cancelled: ending what runs")
                children.end()
            continue
        futures[name].wait()
        states[name] = futures[name].state
        said = states[name].message if states[name].is_final() else "not run, for one before it did not end well"
        log.info("%d of %d: %s: %s", len(states), len(futures), name, said)
    return states


def _may_pass(task: Any, run: Any, state: State[Any]) -> bool:
    return state.name == "Interrupted" and run.run_count <= _RETRIES


# One retry more than are ever made: Prefect logs the last one as an exception, and there is none.
@task(
    retries=_RETRIES + 1,
    retry_delay_seconds=list(_RETRY_DELAYS_S),
    retry_condition_fn=_may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_stage(name: str, children: Children) -> State[Any]:
    """`dvc repro` of one stage, its lines in the log as they come."""
    log = get_run_logger()
    began = time.monotonic()
    last: deque[str] = deque(maxlen=_TAIL)
    # DVC gives up a finished stage if another holds its lock for 3 s, as one that hashes gigabytes does: let it wait.
    try:
        with children.start(["dvc", "--wait-for-lock", "repro", "--single-item", name]) as child:
            for line in map(str.rstrip, child.stdout or ()):
                if line and not line.lstrip().startswith(_HINTS):
                    last.append(line)
                    log.info(line)
    except ProcessLookupError:
        return Cancelled(message="not begun, as its run has ended")
    if children.ended:
        return Cancelled(message="ended with its run")
    state = judge(child.returncode, list(last), time.monotonic() - began)
    try:
        inputs.verify(only=name, wait=True)
    except inputs.Changed as error:
        return Failed(message=str(error))
    lockfile.keep()
    return state


def judge(code: int, lines: Sequence[str], seconds: float) -> State[Any]:
    """What the end of a `dvc repro` means: done, refused, failed, or a failure that may pass if tried again."""
    if code == 0:
        same = any("didn't change, skipping" in line for line in lines)
        return Completed(message="unchanged" if same else f"done in {seconds:.1f} s")
    errors = [line for line in lines if line.startswith("ERROR: ")]  # DVC's, after those of the stage itself
    errors += [line for line in lines if line.startswith("error: ")]
    reason = (errors or list(lines) or [f"dvc ended with {code}"])[-1].removeprefix("ERROR: ").removeprefix("error: ")
    text = "\n".join(lines)
    ends = re.findall(r"exited with (-?\d+)$", text, re.MULTILINE)
    end = int(ends[-1]) if ends else 0
    if end == REFUSED:
        return Failed(name="Refused", message=reason)
    if end < 0 or end > 128:
        return Failed(name="Interrupted", message=f"killed by signal {-end if end < 0 else end - 128}")
    if code < 0 or 128 < code < 255:
        return Failed(name="Interrupted", message="dvc was killed")
    if any(words in text for words in _PASSING):
        if "Unable to read RWLock-file" in text:
            # Half written by a dvc that was killed; until it is gone no dvc works here.
            Path(".dvc/tmp/rwlock").unlink(missing_ok=True)
        return Failed(name="Interrupted", message=reason)
    return Failed(message=reason)


def conclude(states: Mapping[str, State[Any]], paths: Mapping[str, str]) -> State[Any]:
    """The run's own state: Failed, or Completed, with a name of its own where it was refused or needs a person."""
    failed = {name: state for name, state in states.items() if state.is_failed() and state.name != "Refused"}
    if failed:
        return Failed(message="; ".join(f"{name} failed: {state.message}" for name, state in failed.items()))
    refused = {name: state for name, state in states.items() if state.name == "Refused"}
    if refused:
        said = "; ".join(f"{name}: {state.message}" for name, state in refused.items())
        return Completed(name="Refused", message=said)
    if not all(state.is_completed() for state in states.values()):
        return Failed(message="not every stage was run")
    if "verdict" not in paths:
        return Completed(message="every stage is done")
    verdict = read_json(Path(paths["verdict"]))
    if verdict["verdict"] == "pass":
        return Completed(message=f"release {verdict['release']} passes")
    reasons = [criterion["reason"] or criterion["name"] for criterion in verdict["criteria"] if not criterion["holds"]]
    if verdict["verdict"] == "needs a person":
        return Completed(name=OPEN, message=f"release {verdict['release']} needs a person: {'; '.join(reasons)}")
    return Completed(name="Refused", message=f"release {verdict['release']} is refused: {'; '.join(reasons)}")


def tell(paths: Mapping[str, str]) -> None:
    """Write the page of this run and say where it lies. Whether there is one changes nothing of the run."""
    try:
        page = report.write(paths)
        publish_card(page)
        get_run_logger().info("the page of this run: %s", page)
    except UserError as error:
        get_run_logger().warning("there is no page of this run: %s", error)


def cancelled(client: Any) -> bool:
    """Whether someone asks for this run's end, in the UI or by `prefect flow-run cancel`."""
    try:
        state = client.read_flow_run(flow_run.id).state
    except Exception:  # a server that is away for a moment is no reason to end a training
        return False
    return state.is_cancelling() or state.is_cancelled()


def declared_paths() -> dict[str, str]:
    """The paths that dvc.yaml names under `vars`."""
    tree = YAML(typ="safe").load(GRAPH.read_text(encoding="utf-8"))
    named = [entry["paths"] for entry in tree.get("vars", []) if isinstance(entry, dict) and "paths" in entry]
    return named[0] if named else {}


def entries() -> set[str]:
    """The stages that dvc.lock has an entry for."""
    return set(lockfile.stages())


def arrange(recorded: set[str], order: list[str]) -> None:
    """Bring the entries that a run added to dvc.lock into the order in which `dvc repro` adds them.

    Stages that ran side by side stand there in the order in which they ended.
    """
    # The order is for people who read diffs: no reason to lose a run.
    with suppress(UserError), lockfile.idle(wait=True):
        lockfile.move_last([name for name in order if name in entries() - recorded])


@contextmanager
def api() -> Iterator[None]:
    """The Prefect server that is configured; without one, a server of our own while the block lasts.

    Prefect would start one too, but leaves it behind when this process is killed.

    Raises:
        UserError: it does not answer, or start.
    """
    if configured := PREFECT_API_URL.value():
        if not answers(configured, somehow=True):
            how = "`prefect server start` starts one there, without PREFECT_API_URL the run has its own"
            raise UserError(f"no Prefect server answers at {configured}: {how}")
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    # `env`: the page that shows the run takes its address from nothing else.
    serve = ["env", f"PREFECT_UI_API_URL={url}", "prefect", "server", "start", "--no-scheduler"]
    serve += ["--host", "127.0.0.1", "--port", str(port)]
    with Children() as children, children.start(serve, how="end") as server:
        last: deque[str] = deque(maxlen=_TAIL)
        threading.Thread(target=lambda: last.extend(server.stdout or ()), daemon=True).start()
        deadline = time.monotonic() + _SERVER_START_S
        while not answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"Prefect's server did not start: {' '.join(' '.join(last).split())[-500:]}")
            time.sleep(0.1)
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield
            finally:  # Prefect sends what is left at exit, when this server is gone, and waits a minute for it
                APILogHandler().flush()
                EventsWorker.drain_all(timeout=5)


def answers(url: str, somehow: bool = False) -> bool:
    """Whether a Prefect API is there and well; `somehow`: whatever it answers, as one that asks for a token does."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(json.load(response) is True)
    except urllib.error.HTTPError:
        return somehow
    except (OSError, ValueError):
        return False


def main() -> int:
    """Run once; 0: the verdict is pass, 1: failed, 3: refused by validation or gate, 4: a person has to decide."""
    argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Run what changed in dvc.yaml under Prefect: with PREFECT_API_URL's server, else one for this run.",
        epilog="example: PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.pipeline",
    ).parse_args()
    interrupts.raised()
    protect_printing()
    try:
        if not GRAPH.is_file():
            raise UserError(f"there is no {GRAPH} here: run this in the project's folder")
        with api():
            state = pipeline(return_state=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the next run goes on from here", file=sys.stderr)
        return interrupts.CODE
    good = state.is_completed() and state.name != "Refused"
    print(state.message if good else f"error: {state.message}", file=sys.stdout if good else sys.stderr)
    return ENDS.get(state.name or "", 0 if good else 1)


if __name__ == "__main__":
    sys.exit(main())
