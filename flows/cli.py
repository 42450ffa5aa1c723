"""The `millrace` command: each part a thin layer over DVC, Prefect or Triton."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.project import enclosing, laid_out, only, opened, project
from stages.core import interrupts
from stages.core.children import Children, How
from stages.core.command import holding, reporting
from stages.core.errors import Misuse, NeedsPerson, Refused

if TYPE_CHECKING:
    from serving.releases.store import Store
    from serving.releases.switch import Outcome

PASSED, FAILED = 0, 1
ENDS = {"pass": PASSED, "refuse": Refused.code, "needs a person": NeedsPerson.code}
REPRO = [sys.executable, "-m", "stages.core.printing", "dvc", "repro"]
REPORT = [sys.executable, "-m", "flows.report.page"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
data = typer.Typer(no_args_is_help=True, help="Bring data into the project, and say what is expected of them.")
app.add_typer(data, name="data")


def main() -> None:
    """Run the command line; a person's mistake is one line, not a traceback."""
    reporting(app)


@app.command(epilog="Example: `millrace run`, or `millrace run --preset fashion-mnist`")
def run(
    flow: Annotated[bool, typer.Option("--flow", help="Let Prefect drive the same graph.")] = False,
    preset: Annotated[str, typer.Option(help="First write these settings into params.yaml.")] = "",
) -> None:
    """Bring everything up to date and print the verdict.

    Exit code: 0 pass, 1 failed, 2 wrong use, 3 refused, 4 if a person has to decide.
    Ctrl-C loses nothing: the next run goes on from there.
    """
    from flows import preflight
    from serving.triton import scratch
    from stages.core import inputs, lockfile
    from stages.settings import params

    os.chdir(project())
    lockfile.settled()
    scratch.base()
    paths = params.paths()
    if preset:
        chosen = params.preset(preset)
        preflight.data(Path(chosen["data"]["path"]), Path(paths["builtin"]), chosen["data"]["builtin"])
        params.edit(chosen)
    said = params.parse()
    preflight.data(Path(said.data.path), Path(paths["builtin"]), said.data.builtin)
    preflight.champion(paths)
    if preflight.due() and (code := child([sys.executable, "-m", "flows.cli", "check"])):
        sys.exit(code)
    if flow:
        sys.exit(child([sys.executable, "-m", "flows.pipeline"], how="ask"))
    with holding(Path(".dvc/tmp/millrace.lock"), "a run"):
        validation = Path(paths["validation"]) / "validation.json"
        before = stamp(validation)
        code = child(REPRO)
        lockfile.keep()
        inputs.verify()
        if code != 0:
            if stamp(validation) != before and read(validation).get("outcome") == "refused":
                child(REPORT)
                sys.exit(Refused.code)
            sys.exit(FAILED)
        verdict = read(Path(paths["verdict"]))
    show(verdict)
    child(REPORT)
    sys.exit(ENDS[verdict["verdict"]])


@app.command(epilog="Example: `millrace check`, after changing params.yaml")
def check() -> None:
    """Look for mistakes in params.yaml, every name and option in it included, without running anything."""
    from flows import preflight
    from stages.settings import params

    os.chdir(project())
    said = params.parse()
    preflight.data(Path(said.data.path), Path(params.paths()["builtin"]), said.data.builtin)
    preflight.everything(said)
    print("params.yaml is sound", flush=True)


@app.command(epilog="Example: `millrace why train`, when a stage runs that should not")
def why(stage: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")]) -> None:
    """Say which file, package, parameter or data makes a stage run again, or did since the last commit."""
    from flows import why as reasons

    os.chdir(project())
    changes = reasons.would_run(stage, Path())
    done = reasons.has_run(stage, Path())
    print(f"{stage} would run again:" if changes else f"{stage} is up to date")
    for change in changes:
        print(f"  {change}")
    if done:
        print("it has run since the last commit:")
    for change in done:
        print(f"  {change}")


@app.command(epilog="Example: `millrace report`, after `millrace run`")
def report() -> None:
    """Write the page of the last run anew: the verdict, what it rests on, and the same as a model card."""
    os.chdir(project())
    sys.exit(child(REPORT))


@data.command(epilog="Example: `millrace data add ~/pictures`, or `millrace data add houses.csv --target price`")
def add(
    path: Annotated[Path, typer.Argument(help="A folder of pictures, or a table: CSV, Parquet or JSON lines.")],
    name: Annotated[str | None, typer.Option(help="What to call it; its own name otherwise.")] = None,
    target: Annotated[str, typer.Option(help="The column of a table to be told; it is guessed otherwise.")] = "",
    options: Annotated[
        str, typer.Option(help="As `data.options`: `'{encoding: latin-1, delimiter: \";\", columns: [rooms, price]}'`.")
    ] = "{}",
) -> None:
    """Copy a data set to data/raw/NAME, put it under DVC, and point params.yaml at it.

    Of a table it is guessed what each column holds, to be mended in params.yaml.
    """
    path = path.expanduser().absolute()
    os.chdir(project())
    named = [] if name is None else ["--name", name]
    said = ["--target", target, "--options", options]
    sys.exit(child([sys.executable, "-m", "flows.intake.add", *named, *said, "--", str(path)]))


@data.command(epilog="Example: `millrace data expect`, once the data are added and sound")
def expect(
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there for a column, too.")] = False,
) -> None:
    """Write what is expected of such data into params.yaml, inferred from the data that are there, to be edited."""
    os.chdir(project())
    sys.exit(child([sys.executable, "-m", "flows.intake.expect", *(["--force"] if force else [])]))


@app.command(epilog='Example: `millrace schedule --cron "0 3 * * *"`')
def schedule(
    cron: Annotated[str, typer.Option(help="When, as five fields in UTC: minute hour day month weekday.")],
) -> None:
    """Run on a schedule, against a Prefect server (`prefect server start`)."""
    os.chdir(project())
    sys.exit(child([sys.executable, "-m", "flows.schedule", "--cron", cron]))


@app.command(epilog="Example: `millrace release`, after `millrace run` has said pass")
def release(
    override: Annotated[str, typer.Option(help="Release in spite of the verdict: why. Recorded for ever.")] = "",
    breaking: Annotated[bool, typer.Option("--breaking", help="Callers of the live model may break.")] = False,
    champion: Annotated[bool, typer.Option("--from-champion", help="What git says is released.")] = False,
    canary: Annotated[str, typer.Option(metavar="SHARE", help="First try it on such a share of requests: 5%.")] = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="Try it, but give callers the live one's answers.")] = False,
    requests: Annotated[int | None, typer.Option(help="To try it on; else as in params.yaml.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="To try it for, at the most.", min=0.001)] = None,
) -> None:
    """Let the exported model answer under its public name, if its verdict is to pass. Exit code: 3 if refused.

    With --canary or --shadow it and the live one are asked the same; it is promoted or withdrawn by what that shows.
    No request is lost where `millrace serve` is running; else the model is made ready for it.
    """
    from serving.releases import champion as champions
    from serving.releases import git_history
    from serving.releases import release as releases
    from serving.releases.candidate import exported, from_champion
    from serving.releases.trial import Trial
    from stages.core import inputs, lockfile
    from stages.settings import params

    root, store = project(), opened()
    lockfile.settled(root)
    inputs.verify(root, wait=True)
    candidate = from_champion(root) if champion else exported(laid_out())
    how = params.parse(root / "params.yaml").serve
    if not (canary or shadow) and (requests or minutes):
        raise Misuse("--requests and --minutes are of a trial: add --canary 5% or --shadow")
    trial = None
    if canary or shadow:
        said = how.canary.model_dump() | ({"requests": requests} if requests else {})
        said |= {"minutes": minutes} if minutes else {}
        trial = Trial(share=share(canary or "100%"), shadow=shadow, late_s=how.probe_timeout_s, **said)
    done = releases.release(root, store, candidate, keep=how.keep, override=override, breaking=breaking, trial=trial)
    message = f"Release {done.release}"
    if champion:
        tell_committed(root, champions.commit(root, root / "champion", message))
    elif not git_history.params_stand(root):
        tell_committed(root, champions.commit(root, root / "champion", message, ["dvc.lock"]))
        print("params.yaml has changed since `millrace run`: what is released knows nothing of that", file=sys.stderr)
    else:
        champions.judge_again(root)
        trouble = champions.commit(root, root / "champion", message, ["dvc.lock", "params.yaml", "dvc.yaml"])
        tell_committed(root, trouble)
        for fault in [] if trouble else git_history.head(root).disagreements:
            print(f"git alone could not restore this release: {fault}", file=sys.stderr)
    tell_outcome(store, candidate.manifest.name, done)


@app.command(epilog='Example: `millrace approve --by "Ada" --reason "the new clinic has other patients"`')
def approve(
    by: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why it may be released.")],
) -> None:
    """Say yes to the exported model where its verdict needs a person. Recorded for ever, and for this release alone."""
    from serving.releases import approval
    from serving.releases.candidate import exported

    store, candidate = opened(), exported(laid_out())
    for accepted in approval.approve(store, candidate.names, candidate.verdict, by, reason):
        print(f"accepted: {accepted}")
    print(f"{candidate.manifest.id} may be released: `millrace release`")


@app.command(epilog="Example: `millrace rollback`, or `millrace rollback --to 0123456789ab`")
def rollback(
    to: Annotated[str | None, typer.Option(help="The release to return to; the one before the live one.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")] = "",
    model: Annotated[str, typer.Option(help="Public name, where there are several.")] = "",
) -> None:
    """Let an earlier release answer again, exactly as it did. Nothing is trained; no request is lost."""
    from serving.releases import champion as champions
    from serving.releases import rollback as rollbacks

    root, store = project(), opened()
    name = model or only(store.names())
    done = rollbacks.rollback(root, store, name, to, reason)
    tell_committed(root, champions.commit(root, root / "champion", f"Roll back to {done.release}"))
    tell_outcome(store, name, done)


@app.command(epilog="Example: `millrace serve`, then `millrace predict picture.png` elsewhere")
def serve(
    http_port: Annotated[int, typer.Option(help="Of HTTP.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Of gRPC.", min=1, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Of Prometheus metrics.", min=1, max=65535)] = 8002,
) -> None:
    """Serve what is released on this machine alone, and heal it where it fails, until Ctrl-C."""
    import functools
    import signal
    import threading

    from serving.releases import supervisor
    from stages.settings import params

    ports = supervisor.Ports(http_port, grpc_port, metrics_port)
    if len(set(ports)) < 3:
        raise Misuse("HTTP, gRPC and metrics need a port each: two of those given are the same")
    root, store = project(), opened()
    how = params.parse(root / "params.yaml").serve
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    tell = functools.partial(print, flush=True)
    supervisor.serve(root, store, ports, how.probe_s, how.probe_timeout_s, tell, stop)


@app.command(epilog="Example: `millrace status`")
def status() -> None:
    """What answers now, since when and by which verdict; what is kept; what was done of late."""
    from serving.releases import status as standing

    standing.show(opened())
    standing.show_unsettled(project(), opened())


@app.command(epilog="Example: `millrace trace answers.csv`, or `millrace trace 0123456789ab --restore ../as-it-was`")
def trace(
    answer: Annotated[
        str, typer.Argument(help="A release, or saved answers: JSON, or a .json, .jsonl, .csv, .parquet.")
    ],
    restore: Annotated[Path | None, typer.Option(help="A new folder: check out there just that state.")] = None,
) -> None:
    """The way back from an answer to the data and the code, offline. Exit code: 1 if a byte is altered or absent."""
    from serving.releases import trace as tracing

    root, store = project(), opened()
    releases = tracing.named(answer)
    if restore and len(releases) > 1:
        raise Misuse(f"say which to restore: {answer} names {', '.join(releases)}")
    traces = [tracing.follow(root, store, release) for release in releases]
    for each in traces:
        tracing.show(each)
    if restore:
        tracing.restore(traces[0], restore)
    sys.exit(PASSED if all(each.holds for each in traces) else FAILED)


@app.command(epilog="Example: `millrace predict picture.png`, `millrace predict '{\"age\": 39}'` or `... people.csv`")
def predict(
    values: Annotated[
        list[str],
        typer.Argument(
            help="JSON objects; .csv, .parquet or .jsonl files; folders of pictures; values of the model's only column."
        ),
    ],
    server: Annotated[str, typer.Option(help="HOST:PORT of its gRPC, or http://HOST:PORT; else our own server.")] = "",
    model: Annotated[str, typer.Option(help="Its public name; the project's own otherwise.")] = "",
    output: Annotated[Path | None, typer.Option(help="Write answers to this .csv, .parquet or .jsonl file.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="That of each label, too.")] = False,
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for each request.", min=0.001)] = 10.0,
) -> None:
    """Ask a served model; a line of JSON for each answer. Rows without one are named with the reason (exit code 1).

    In a project, tables are read as `data.options` in params.yaml says, elsewhere blanks, `?` and `NA` are missing.
    """
    from serving.client import AsyncClient, inputs
    from serving.client.predict import answer, table_format
    from stages.settings import params

    tables = inputs.TableFormat()
    if not model and enclosing() is None:
        raise Misuse("there is no project here whose model could be asked: name one with --model")
    if enclosing():
        said = params.parse(project() / "params.yaml")
        model, tables = model or said.export.name, table_format(said.data.format, said.data.options)
        server = server or opened().address()
    try:
        client = AsyncClient(server or "127.0.0.1:8001", model, timeout_s=timeout_s, retry_s=0.5)
    except ValueError as error:
        raise Misuse(str(error)) from error
    sys.exit(PASSED if answer(values, client, tables, output, probabilities) else FAILED)


def share(text: str) -> float:
    """`5%` -> 0.05.

    Raises:
        Misuse: it is no share.
    """
    try:
        said = float(text.removesuffix("%"))
    except ValueError:
        said = 0.0
    if not (text.endswith("%") and 0 < said <= 100):
        raise Misuse(f"--canary {text!r} is no share of the requests: write it as 5%, up to 100%")
    return said / 100


def tell_outcome(store: Store, name: str, done: Outcome) -> None:
    """What answers now."""
    starting = store.server() is not None
    waiting = "the server that is starting takes it up" if starting else "`millrace serve` starts the server"
    where = "answers" if done.live else f"is ready: {waiting}"
    before = f", after {done.before}" if done.before not in (None, done.release) else ""
    print(f"{name}: release {done.release} {where}{before}")
    for line in done.notices:
        print(f"  {line}")


def tell_committed(root: Path, trouble: str) -> None:
    """Why git has no commit of it, if so, or may lose it."""
    from serving.releases import git_history

    if not trouble and git_history.detached(root):
        print("HEAD is detached, so no branch has this commit: `git switch -c NAME` keeps it", file=sys.stderr)
    if trouble:
        print(f"champion/ is set, but not committed ({trouble}): commit champion and dvc.lock", file=sys.stderr)


def child(command: list[str], how: How = "spare") -> int:
    """Run a command that does not outlive this one, on this terminal; its exit code. Ctrl-C ends both."""
    with Children() as children, children.start(command, how=how, shown=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            children.end()
            process.wait()
    print("interrupted: the same command goes on from here", file=sys.stderr)
    sys.exit(interrupts.CODE)


def stamp(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 if it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0


def read(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an empty one if it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def show(verdict: dict[str, Any]) -> None:
    """One line for the verdict, and one for each reason of a refusal."""
    print(f"{verdict['verdict']}: release {verdict['release']}")
    for criterion in verdict["criteria"]:
        if not criterion["holds"]:
            print(f"  {'for a person' if criterion['person'] else 'refused'}: {criterion['reason']}")
    if verdict["verdict"] == "needs a person":
        print("`millrace approve --by NAME --reason WHY` lets it be released")


if __name__ == "__main__":
    main()
