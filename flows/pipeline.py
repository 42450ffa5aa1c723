"""The pipeline of dvc.yaml under Prefect: a task for each stage; DVC runs and caches it."""

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
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")  # read while Prefect is imported
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from ruamel.yaml import YAML

from flows.artifacts import publish, publish_card, read_json
from flows.report import page as report
from stages.core import inputs, interrupts, lockfile
from stages.core.children import Children, loopback_direct
from stages.core.errors import NeedsPerson, Refused, UserError
from stages.core.locks import holding
from stages.core.printing import protect_printing

os.environ.update(loopback_direct())  # read whenever Prefect opens a connection

GRAPH = Path("dvc.yaml")
ONE_RUN = Path(".dvc/tmp/millrace.lock")
REFUSED = 3  # the exit code of a stage that refuses
OPEN = "NeedsPerson"  # the name of a run's state if a person has to decide
ENDS = {"Refused": Refused.exit_code, OPEN: NeedsPerson.exit_code}  # exit code by the state's name

_RETRIES = 2
_RETRY_DELAYS_S = (2, 5)
_POLL_S = 2
_SERVER_START_S = 120
_TAIL = 200  # last lines of a stage, kept for the reason of a failure
_HINTS = ("To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push`")
_PASSING = (  # messages of DVC and of the launcher about failures that a retry may cure
    "is busy, it is being blocked by",
    "Unable to acquire lock",
    "Unable to read RWLock-file",
    "tritonserver is not ready after",
)


@dataclass(frozen=True)
class Stage:
    """A node of DVC's graph. `alone`: no other stage may run meanwhile (`meta: {alone: true}` in dvc.yaml)."""

    name: str
    after: tuple[str, ...]
    outs: tuple[str, ...]
    alone: bool = False


RUNNER: Any = ThreadPoolTaskRunner()  # Prefect's types take only futures of its own kind


@flow(name="millrace", task_runner=RUNNER)
def pipeline() -> State[Any]:
    """Run the changed stages of dvc.yaml in the current folder; publish metrics, plots and verdict."""
    try:
        lockfile.check_conflicts()
        for restored in lockfile.recover(Path()):
            get_run_logger().warning(restored)
        stages = plan()
        with holding(ONE_RUN, "a run"):
            states = drive(stages)
        if any(state.is_cancelled() for state in states.values()):
            return Cancelled(message="cancelled; the next run continues from here")
        paths = declared_paths()
        settled = [stage for stage in stages if states[stage.name].name in ("Completed", "Refused")]
        publish(paths, {out for stage in settled for out in stage.outs})
        state = conclude(states, paths)
        if state.is_completed() and "verdict" in paths:
            write_report(paths)
        return state
    except UserError as error:
        return Failed(message=str(error))


def plan() -> list[Stage]:
    """List the stages in the order in which `dvc repro` runs them.

    Raises:
        UserError: there is no dvc.yaml here, or DVC cannot read it.
    """
    # `dvc dag` has the edges but not the order in which repro writes dvc.lock.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    if not GRAPH.is_file():
        raise UserError("project-not-found", f"there is no {GRAPH} here: run this in the project's folder")
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
        raise UserError("dvc-yaml-invalid", f"{GRAPH}: {' '.join(str(error).split())}: `dvc dag` says where") from error


def waits(stages: Sequence[Stage]) -> dict[str, list[str]]:
    """For each stage, the stages that must end before it: those upstream, and others if a stage must run alone."""
    before: dict[str, list[str]] = {}
    alone: list[str] = []
    for stage in stages:
        before[stage.name] = list(before) if stage.alone else [*dict.fromkeys([*stage.after, *alone])]
        if stage.alone:
            alone = [stage.name]
    return before


def drive(stages: Sequence[Stage]) -> dict[str, State[Any]]:
    """Run every stage as soon as those before it have succeeded; return the state of each."""
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
    """Submit a task for each stage; its name is put into `ended` when it is over."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for name, others in before.items():
        named: Any = run_stage.with_options(name=name, task_run_name=name)
        futures[name] = named.submit(name, children, wait_for=[futures[other] for other in others])
        futures[name].add_done_callback(partial(_report_end, ended, name))
    return futures


def _report_end(ended: SimpleQueue[str], name: str, _: PrefectFuture[Any]) -> None:
    ended.put(name)


def watch(
    futures: Mapping[str, PrefectFuture[Any]], ended: SimpleQueue[str], children: Children, client: Any
) -> dict[str, State[Any]]:
    """Log the progress until all tasks are over; end the run if someone cancels it."""
    log = get_run_logger()
    states: dict[str, State[Any]] = {}
    while len(states) < len(futures):
        try:
            name = ended.get(timeout=_POLL_S)
        except Empty:
            if not children.ended and cancelled(client):
                log.info("cancelled: ending the running stages")
                children.end()
            continue
        futures[name].wait()
        states[name] = futures[name].state
        message = states[name].message if states[name].is_final() else "not run: a stage before it did not succeed"
        log.info("%d of %d: %s: %s", len(states), len(futures), name, message)
    return states


def _may_pass(task: Any, run: Any, state: State[Any]) -> bool:
    return state.name == "Interrupted" and run.run_count <= _RETRIES


# One more than are ever made: Prefect logs the last retry as an exception.
@task(
    retries=_RETRIES + 1,
    retry_delay_seconds=list(_RETRY_DELAYS_S),
    retry_condition_fn=_may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_stage(name: str, children: Children) -> State[Any]:
    """Run `dvc repro` for one stage, and log its lines as they come."""
    log = get_run_logger()
    began = time.monotonic()
    last: deque[str] = deque(maxlen=_TAIL)
    # Without the option DVC drops a finished stage if another holds its lock for 3 s, as when it hashes gigabytes.
    try:
        with children.start(["dvc", "--wait-for-lock", "repro", "--single-item", name]) as child:
            for line in map(str.rstrip, child.stdout or ()):
                if line and not line.lstrip().startswith(_HINTS):
                    last.append(line)
                    log.info(line)
    except ProcessLookupError:
        return Cancelled(message="not started, because its run has ended")
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
    """Interpret the end of a `dvc repro`: completed, refused, failed, or interrupted, which a retry may cure."""
    if code == 0:
        same = any("didn't change, skipping" in line for line in lines)
        return Completed(message="unchanged" if same else f"done in {seconds:.1f} s")
    errors = [line for line in lines if line.startswith("ERROR: ")]  # by DVC; those of the stage follow
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
            # A killed dvc has written half of it; no dvc works here until it is removed.
            Path(".dvc/tmp/rwlock").unlink(missing_ok=True)
        return Failed(name="Interrupted", message=reason)
    return Failed(message=reason)


def conclude(states: Mapping[str, State[Any]], paths: Mapping[str, str]) -> State[Any]:
    """The state of the run: Failed or Completed, the latter named Refused or NeedsPerson where that applies."""
    failed = {name: state for name, state in states.items() if state.is_failed() and state.name != "Refused"}
    if failed:
        return Failed(message="; ".join(f"{name} failed: {state.message}" for name, state in failed.items()))
    refused = {name: state for name, state in states.items() if state.name == "Refused"}
    if refused:
        message = "; ".join(f"{name}: {state.message}" for name, state in refused.items())
        return Completed(name="Refused", message=message)
    if not all(state.is_completed() for state in states.values()):
        return Failed(message="some stages were not run")
    if "verdict" not in paths:
        return Completed(message="all stages are done")
    verdict = read_json(Path(paths["verdict"]))
    if verdict["verdict"] == "pass":
        return Completed(message=f"release {verdict['release']} passes")
    reasons = [criterion["reason"] or criterion["name"] for criterion in verdict["criteria"] if not criterion["holds"]]
    if verdict["verdict"] == "needs a person":
        return Completed(name=OPEN, message=f"release {verdict['release']} needs a person: {'; '.join(reasons)}")
    return Completed(name="Refused", message=f"release {verdict['release']} is refused: {'; '.join(reasons)}")


def write_report(paths: Mapping[str, str]) -> None:
    """Write the report of this run and log its path. A failure does not change the run's state."""
    try:
        page = report.write(paths)
        publish_card(page)
        get_run_logger().info("the report of this run: %s", page)
    except UserError as error:
        get_run_logger().warning("there is no report of this run: %s", error)


def cancelled(client: Any) -> bool:
    """Whether this run was cancelled, in the UI or by `prefect flow-run cancel`."""
    try:
        state = client.read_flow_run(flow_run.id).state
    except Exception:  # an unreachable server is no reason to end a training
        return False
    return bool(state.is_cancelling() or state.is_cancelled())


def declared_paths() -> dict[str, str]:
    """The paths under `vars` in dvc.yaml, by name."""
    tree = YAML(typ="safe").load(GRAPH.read_text(encoding="utf-8"))
    named = [entry["paths"] for entry in tree.get("vars", []) if isinstance(entry, dict) and "paths" in entry]
    return named[0] if named else {}


def entries() -> set[str]:
    """The stages with an entry in dvc.lock."""
    return set(lockfile.stages())


def arrange(recorded: set[str], order: list[str]) -> None:
    """Sort the entries that a run added to dvc.lock into the order in which `dvc repro` adds them.

    Stages that ran at the same time were added in the order in which they ended.
    """
    # The order only helps people who read diffs, so a failure is ignored.
    with suppress(UserError), lockfile.idle(wait=True):
        lockfile.move_last([name for name in order if name in entries() - recorded])


@contextmanager
def api() -> Iterator[None]:
    """Use the configured Prefect server; if there is none, start one for the duration of the block.

    Prefect would start one too, but leaves it running when this process is killed.

    Raises:
        UserError: the server does not answer, or does not start.
    """
    if configured := PREFECT_API_URL.value():
        if not answers(configured, somehow=True):
            remedy = "start it with `prefect server start`, or unset PREFECT_API_URL to let the run start its own"
            raise UserError("prefect-no-server", f"no Prefect server answers at {configured}: {remedy}")
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    # Prefect's page reads its address only from this variable.
    serve = ["env", f"PREFECT_UI_API_URL={url}", "prefect", "server", "start", "--no-scheduler"]
    serve += ["--host", "127.0.0.1", "--port", str(port)]
    with Children() as children, children.start(serve, how="end") as server:
        last: deque[str] = deque(maxlen=_TAIL)
        threading.Thread(target=lambda: last.extend(server.stdout or ()), daemon=True).start()
        deadline = time.monotonic() + _SERVER_START_S
        while not answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise UserError(
                    "prefect-not-started", f"Prefect's server did not start: {' '.join(' '.join(last).split())[-500:]}"
                )
            time.sleep(0.1)
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield
            finally:  # at exit Prefect would wait a minute to send the rest to a server that is gone
                APILogHandler().flush()
                EventsWorker.drain_all(timeout=5)


def answers(url: str, somehow: bool = False) -> bool:
    """Whether a Prefect API is healthy. `somehow`: or answers with any error, such as one that requires a token."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(json.load(response) is True)
    except urllib.error.HTTPError:
        return somehow
    except (OSError, ValueError):
        return False


def main() -> int:
    """Run once. Returns 0 for pass, 1 for failed, 3 for refused by validation or gate, 4 if a person has to decide."""
    argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Run the changed stages of dvc.yaml under Prefect, on PREFECT_API_URL's server or its own.",
        epilog="example: PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.pipeline",
    ).parse_args()
    interrupts.raised()
    protect_printing()
    try:
        if not GRAPH.is_file():
            raise UserError("project-not-found", f"there is no {GRAPH} here: run this in the project's folder")
        with api():
            state = pipeline(return_state=True)
    except UserError as error:
        print(error.line, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the next run continues from here", file=sys.stderr)
        return interrupts.CODE
    good = state.is_completed() and state.name != "Refused"
    print(state.message if good else f"error: {state.message}", file=sys.stdout if good else sys.stderr)
    return ENDS.get(state.name or "", 0 if good else 1)


if __name__ == "__main__":
    sys.exit(main())
