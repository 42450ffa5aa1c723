"""The `millrace` command: a thin layer over DVC, Prefect and Triton."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.console import child, read, share, show, show_committed, show_outcome, stamp, warn_again
from flows.project import enclosing, laid_out, only, opened, project
from stages.core.command import reporting
from stages.core.errors import Misuse, NeedsPerson, Refused
from stages.core.locks import holding

PASSED, FAILED = 0, 1
ENDS = {"pass": PASSED, "refuse": Refused.exit_code, "needs a person": NeedsPerson.exit_code}
REPRO = [sys.executable, "-m", "stages.core.run_module", "dvc", "repro"]
REPORT = [sys.executable, "-m", "flows.report.page"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
data = typer.Typer(no_args_is_help=True, help="Add data to the project, and infer expectations for them.")
app.add_typer(data, name="data")


def main() -> None:
    """Run the command line; a user's mistake is one line, not a traceback."""
    reporting(app)


@app.command(epilog="Example: `millrace run`, or `millrace run --preset fashion-mnist`")
def run(
    flow: Annotated[bool, typer.Option("--flow", help="Let Prefect drive the same pipeline.")] = False,
    preset: Annotated[str, typer.Option(help="First write these settings into params.yaml.")] = "",
) -> None:
    """Bring everything up to date and print the verdict.

    Exit code: 0 pass, 1 failed, 2 wrong usage, 3 refused, 4 if a person has to decide.
    After Ctrl-C the next run resumes.
    """
    from flows import preflight
    from serving.triton import scratch
    from stages.core import inputs, lockfile
    from stages.settings import params

    os.chdir(project())
    lockfile.check_conflicts()
    scratch.base()
    paths = params.paths()
    if preset:
        chosen = params.preset(preset)
        preflight.data(Path(chosen["data"]["path"]), Path(paths["builtin"]), chosen["data"]["builtin"])
        params.edit(chosen)
    settings = params.parse()
    preflight.data(Path(settings.data.path), Path(paths["builtin"]), settings.data.builtin)
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
                sys.exit(Refused.exit_code)
            sys.exit(FAILED)
        verdict = read(Path(paths["verdict"]))
    show(verdict)
    warn_again(validation)
    child(REPORT)
    sys.exit(ENDS[verdict["verdict"]])


@app.command(epilog="Example: `millrace check`, after changing params.yaml")
def check() -> None:
    """Check every name, option and value in params.yaml, without running anything."""
    from flows import preflight
    from stages.settings import params

    os.chdir(project())
    settings = params.parse()
    preflight.data(Path(settings.data.path), Path(params.paths()["builtin"]), settings.data.builtin)
    preflight.everything(settings)
    print("params.yaml is sound", flush=True)


@app.command(epilog="Example: `millrace why train`, when a stage runs that should not")
def why(stage: Annotated[str, typer.Argument(help="A stage in dvc.yaml.")]) -> None:
    """Print which file, package, parameter or data makes a stage run again, or did so since the last commit."""
    from flows import why as reasons

    os.chdir(project())
    changes = reasons.would_run(stage, Path())
    past = reasons.has_run(stage, Path())
    print(f"{stage} would run again:" if changes else f"{stage} is up to date")
    for change in changes:
        print(f"  {change}")
    if past:
        print("it has run since the last commit:")
    for change in past:
        print(f"  {change}")


@app.command(epilog="Example: `millrace report`, after `millrace run`")
def report() -> None:
    """Rewrite the report of the last run: the verdict, the evidence, and a model card."""
    os.chdir(project())
    sys.exit(child(REPORT))


@data.command(epilog="Example: `millrace data add ~/pictures`, or `millrace data add houses.csv --target price`")
def add(
    path: Annotated[Path, typer.Argument(help="A folder of images, or a table: CSV, Parquet or JSON lines.")],
    name: Annotated[str | None, typer.Option(help="The name in data/raw; default: the file's name.")] = None,
    target: Annotated[str, typer.Option(help="The column of a table to predict; default: guessed.")] = "",
    options: Annotated[
        str,
        typer.Option(help="As `data.options`: `'{encoding: latin-1, delimiter: \";\", columns: [rooms, price]}'`."),
    ] = "{}",
) -> None:
    """Copy a data set to data/raw/NAME, track it with DVC, and set params.yaml to it.

    The kinds of a table's columns are guessed: correct them in params.yaml.
    """
    path = path.expanduser().absolute()
    os.chdir(project())
    name_given = [] if name is None else ["--name", name]
    options_given = ["--target", target, "--options", options]
    sys.exit(child([sys.executable, "-m", "flows.intake.add", *name_given, *options_given, "--", str(path)]))


@data.command(epilog="Example: `millrace data expect`, after adding data that you trust")
def expect(
    force: Annotated[bool, typer.Option("--force", help="Also replace existing expectations.")] = False,
) -> None:
    """Infer expectations from the current data and write them to params.yaml, for you to correct."""
    os.chdir(project())
    sys.exit(child([sys.executable, "-m", "flows.intake.expect", *(["--force"] if force else [])]))


@app.command(epilog='Example: `millrace schedule --cron "0 3 * * *"`')
def schedule(
    cron: Annotated[str, typer.Option(help="Five fields in UTC: minute hour day month weekday.")],
) -> None:
    """Run on a schedule. This needs a Prefect server (`prefect server start`)."""
    os.chdir(project())
    sys.exit(child([sys.executable, "-m", "flows.schedule", "--cron", cron]))


@app.command(epilog="Example: `millrace release`, after `millrace run` printed pass")
def release(
    override: Annotated[str, typer.Option(help="Release despite the verdict; this reason stays on record.")] = "",
    breaking: Annotated[bool, typer.Option("--breaking", help="Allow a model that breaks its callers.")] = False,
    champion: Annotated[bool, typer.Option("--from-champion", help="Release what git has in champion/.")] = False,
    canary: Annotated[str, typer.Option(metavar="SHARE", help="First try it on this share of requests: 5%.")] = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="Try it, but return the live release's responses.")] = False,
    requests: Annotated[int | None, typer.Option(help="Requests of the trial; default: params.yaml.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="The longest duration of the trial.", min=0.001)] = None,
) -> None:
    """Serve the exported model under its public name, if its verdict is pass. Exit code: 3 if refused.

    With --canary or --shadow, requests first go to both the new and the live release; then the new one takes over or is
    withdrawn.
    If `millrace serve` is running, no request is lost; otherwise the release is prepared for the next start.
    """
    from serving.releases import champion as champions
    from serving.releases import git_history
    from serving.releases import release as releases
    from serving.releases.candidate import exported, from_champion
    from serving.releases.trial import Trial
    from stages.core import inputs, lockfile
    from stages.settings import params

    root, store = project(), opened()
    lockfile.check_conflicts(root)
    inputs.verify(root, wait=True)
    candidate = from_champion(root) if champion else exported(laid_out())
    settings = params.parse(root / "params.yaml").serve
    if not (canary or shadow) and (requests or minutes):
        raise Misuse(
            "option-needs-trial", "--requests and --minutes apply to a trial only: add --canary 5% or --shadow"
        )
    trial = None
    if canary or shadow:
        limits = settings.canary.model_dump() | ({"requests": requests} if requests else {})
        limits |= {"minutes": minutes} if minutes else {}
        trial = Trial(share=share(canary or "100%"), shadow=shadow, late_s=settings.probe_timeout_s, **limits)
    outcome = releases.release(
        root, store, candidate, keep=settings.keep, override=override, breaking=breaking, trial=trial
    )
    message = f"Release {outcome.release}"
    if champion:
        show_committed(root, champions.commit(root, root / "champion", message))
    elif not git_history.params_stand(root):
        show_committed(root, champions.commit(root, root / "champion", message, ["dvc.lock"]))
        print(
            "params.yaml has changed since `millrace run`: the release has the earlier values",
            file=sys.stderr,
        )
    else:
        champions.judge_again(root)
        problem = champions.commit(root, root / "champion", message, ["dvc.lock", "params.yaml", "dvc.yaml"])
        show_committed(root, problem)
        for fault in [] if problem else git_history.head(root).disagreements:
            print(f"git alone could not restore this release: {fault}", file=sys.stderr)
    show_outcome(store, candidate.manifest.name, outcome)


@app.command(epilog='Example: `millrace approve --by "Ada" --reason "the new clinic has other patients"`')
def approve(
    by: Annotated[str, typer.Option(help="Your name.")],
    reason: Annotated[str, typer.Option(help="Why the model may be released.")],
) -> None:
    """Approve the exported model, this release only, if its verdict needs a person. The approval stays on record."""
    from serving.releases import approval
    from serving.releases.candidate import exported

    store, candidate = opened(), exported(laid_out())
    for accepted in approval.approve(store, candidate.names, candidate.verdict, by, reason):
        print(f"accepted: {accepted}")
    print(f"{candidate.manifest.id} may be released: `millrace release`")


@app.command(epilog="Example: `millrace rollback`, or `millrace rollback --to 0123456789ab`")
def rollback(
    to: Annotated[str | None, typer.Option(help="The release to return to; default: the previous one.")] = None,
    reason: Annotated[str, typer.Option(help="Recorded in the ledger.")] = "",
    model: Annotated[str, typer.Option(help="The model's public name, needed if there are several.")] = "",
) -> None:
    """Serve an earlier release again, exactly as before. Nothing is trained and no request is lost."""
    from serving.releases import champion as champions
    from serving.releases import rollback as rollbacks

    root, store = project(), opened()
    name = model or only(store.names())
    outcome = rollbacks.rollback(root, store, name, to, reason)
    show_committed(root, champions.commit(root, root / "champion", f"Roll back to {outcome.release}"))
    show_outcome(store, name, outcome)


@app.command(epilog="Example: `millrace serve`, then `millrace predict picture.png` elsewhere")
def serve(
    http_port: Annotated[int, typer.Option(help="The HTTP port.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="The gRPC port.", min=1, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus metrics.", min=1, max=65535)] = 8002,
) -> None:
    """Serve the release on this machine only, and repair it if it fails, until Ctrl-C."""
    import functools
    import signal
    import threading

    from serving.releases import supervisor
    from stages.settings import params

    ports = supervisor.Ports(http_port, grpc_port, metrics_port)
    if len(set(ports)) < 3:
        raise Misuse("port-repeated", "HTTP, gRPC and metrics need a port each: two of those given are the same")
    root, store = project(), opened()
    settings = params.parse(root / "params.yaml").serve
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    write = functools.partial(print, flush=True)
    supervisor.serve(root, store, ports, settings.probe_s, settings.probe_timeout_s, write, stop)


@app.command(epilog="Example: `millrace status`")
def status() -> None:
    """Print the live release, its verdict, the kept releases, and recent events."""
    from serving.releases import status as state

    state.show(opened())
    state.show_unsettled(project(), opened())


@app.command(epilog="Example: `millrace trace answers.csv`, or `millrace trace 0123456789ab --restore ../as-it-was`")
def trace(
    answer: Annotated[
        str, typer.Argument(help="A release, or saved answers: JSON, or a .json, .jsonl, .csv or .parquet file.")
    ],
    restore: Annotated[Path | None, typer.Option(help="Check out that state in this new folder.")] = None,
) -> None:
    """Trace a prediction back to its data and code, offline. Exit code: 1 if a file is altered or missing."""
    from serving.releases import saved_answers
    from serving.releases import trace as tracing

    root, store = project(), opened()
    releases = saved_answers.named(answer)
    if restore and len(releases) > 1:
        raise Misuse(
            "trace-several-releases",
            f"{answer} names several releases, {', '.join(releases)}: trace the one to restore",
        )
    if restore:
        tracing.check_new(restore)
    traces = [tracing.follow(root, store, release) for release in releases]
    for followed in traces:
        tracing.show(followed)
    if restore:
        tracing.restore(traces[0], restore)
    sys.exit(PASSED if all(followed.holds for followed in traces) else FAILED)


@app.command(epilog="Example: `millrace predict picture.png`, `millrace predict '{\"age\": 39}'` or `... people.csv`")
def predict(
    values: Annotated[
        list[str],
        typer.Argument(
            help="JSON objects; .csv, .parquet or .jsonl files; folders of images; values of the model's only column."
        ),
    ],
    server: Annotated[str, typer.Option(help="HOST:PORT for gRPC, or http://HOST:PORT; default: our server.")] = "",
    model: Annotated[str, typer.Option(help="The public name; default: this project's.")] = "",
    output: Annotated[Path | None, typer.Option(help="Write answers to this .csv, .parquet or .jsonl file.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add the probability of each class.")] = False,
    timeout_s: Annotated[float, typer.Option(help="Timeout of each request, in seconds.", min=0.001)] = 10.0,
) -> None:
    """Predict with a served model; prints a line of JSON for each row. Exit code: 1 if a row has no prediction.

    Tables are read as `data.options` in params.yaml says; outside a project, blanks, `?` and `NA` are missing.
    """
    from serving.client import AsyncClient, inputs
    from serving.client.predict import answer, table_format
    from stages.settings import params

    tables = inputs.TableFormat()
    if not model and enclosing() is None:
        raise Misuse("option-model-missing", "this folder is in no project: name the model with --model")
    if enclosing():
        settings = params.parse(project() / "params.yaml")
        model, tables = model or settings.export.name, table_format(settings.data.format, settings.data.options)
        server = server or opened().address()
    try:
        client = AsyncClient(server or "127.0.0.1:8001", model, timeout_s=timeout_s, retry_s=0.5)
    except ValueError as error:
        raise Misuse("option-invalid-server", str(error)) from error
    sys.exit(PASSED if answer(values, client, tables, output, probabilities) else FAILED)


if __name__ == "__main__":
    main()
