"""The `millrace` command: each part a thin layer over DVC, Prefect or Triton."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.children import Children, How
from stages.command import holding
from stages.errors import Misuse, Refused, UserError

PASSED, FAILED, INTERRUPTED = 0, 1, 130

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
data = typer.Typer(no_args_is_help=True, help="Bring data into the project.")
app.add_typer(data, name="data")


def main() -> None:
    """Run the command line; a person's mistake is one line, not a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)


@app.command(epilog="Example: `millrace run`, or `millrace run --preset fashion-mnist`")
def run(
    flow: Annotated[bool, typer.Option("--flow", help="Let Prefect drive the same graph.")] = False,
    preset: Annotated[str, typer.Option(help="First write these settings into params.yaml.")] = "",
) -> None:
    """Bring everything up to date and print the verdict. Exit code: 0 pass, 1 failed, 2 wrong use, 3 refused.

    Ctrl-C loses nothing: the next run goes on from there.
    """
    from stages import params, preflight

    os.chdir(project())
    paths = params.paths()
    if preset:
        chosen = params.preset(preset)
        preflight.data(Path(chosen["data"]["path"]), Path(paths["builtin"]), chosen["data"]["builtin"])
        params.edit(chosen)
    said = params.parse()
    preflight.data(Path(said.data.path), Path(paths["builtin"]), said.data.builtin)
    if preflight.due() and (code := child([sys.executable, "-m", "serving.cli", "check"])):
        sys.exit(code)
    if flow:
        sys.exit(child([sys.executable, "-m", "flows.pipeline"], how="ask"))
    with holding(Path(".dvc/tmp/millrace.lock"), "a run"):
        validation = Path(paths["validation"]) / "validation.json"
        before = stamp(validation)
        code = child([sys.executable, "-m", "dvc", "repro"])
        if code != 0:
            refused = stamp(validation) != before and read(validation).get("outcome") == "refused"
            sys.exit(Refused.code if refused else FAILED)
        verdict = read(Path(paths["verdict"]))
    show(verdict)
    sys.exit(PASSED if verdict["verdict"] == "pass" else Refused.code)


@app.command(epilog="Example: `millrace check`, after changing params.yaml")
def check() -> None:
    """Look for mistakes in params.yaml, every name and option in it included, without running anything."""
    from stages import params, preflight

    os.chdir(project())
    said = params.parse()
    preflight.data(Path(said.data.path), Path(params.paths()["builtin"]), said.data.builtin)
    preflight.everything(said)
    print("params.yaml is sound", flush=True)


@data.command(epilog="Example: `millrace data add ~/pictures`")
def add(
    path: Annotated[Path, typer.Argument(help="A folder of your data, wherever it lies.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the folder's own name otherwise.")] = None,
) -> None:
    """Copy a data set to data/raw/NAME, put it under DVC, and point params.yaml at it."""
    path = path.expanduser().absolute()
    os.chdir(project())
    named = [] if name is None else ["--name", name]
    sys.exit(child([sys.executable, "-m", "flows.data", *named, "--", str(path)]))


@app.command(epilog='Example: `millrace schedule --cron "0 3 * * *"`')
def schedule(cron: Annotated[str, typer.Option(help="When, as five fields: minute hour day month weekday.")]) -> None:
    """Run on a schedule, against a Prefect server (`prefect server start`)."""
    os.chdir(project())
    sys.exit(child([sys.executable, "-m", "flows.deployments", "--cron", cron]))


@app.command(epilog="Example: `millrace serve`, then `millrace predict picture.png` elsewhere")
def serve(
    http_port: Annotated[int, typer.Option(help="Of HTTP.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Of gRPC.", min=1, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Of Prometheus metrics.", min=1, max=65535)] = 8002,
) -> None:
    """Serve a copy of the exported model on this machine alone, until Ctrl-C."""
    import shutil
    import signal
    import tempfile

    from serving.launcher import running
    from serving.repository import Names
    from stages import manifest

    if len({http_port, grpc_port, metrics_port}) < 3:
        raise Misuse("HTTP, gRPC and metrics need a port each: two of those given are the same")
    paths = exported()
    made = manifest.load(paths["manifest"])
    names = Names(made.name, made.id)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="millrace-serve-") as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(paths["repository"], copy)
        manifest.check(copy, made)
        models = [names.public, names.candidate]
        with running(copy, models, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port) as endpoint:
            print(
                f"{names.public}, release {made.id}: HTTP {endpoint.http}, gRPC {endpoint.grpc}. Ctrl-C ends it",
                flush=True,
            )
            try:
                endpoint.process.wait()
            except KeyboardInterrupt:
                return
            raise UserError(f"the server ended by itself with code {endpoint.process.returncode}")


@app.command(epilog="Example: `millrace predict picture.png`, `millrace predict '{\"age\": 39}'` or `... people.csv`")
def predict(
    values: Annotated[
        list[str], typer.Argument(help="JSON objects, .csv files with a header, or values of the model's only column.")
    ],
    server: Annotated[str, typer.Option(help="Address of its gRPC.")] = "127.0.0.1:8001",
) -> None:
    """Ask the served model, and print a line of JSON for each answer, or why there is none (exit code 1)."""
    from serving import client as clients
    from serving.repository import Names
    from stages import manifest
    from stages.schema import Schema

    paths = exported()
    made = manifest.load(paths["manifest"])
    names = Names(made.name, made.id)
    schema = Schema.load(paths["repository"] / names.encode / "1" / "schema.json")
    from tritonclient.utils import InferenceServerException

    faulty = False
    with clients.connected(server) as client:
        for value, row in clients.rows(values, schema):
            try:
                (answer,) = clients.predict(client, names.public, schema, {name: [cell] for name, cell in row.items()})
                print(json.dumps({"input": value} | answer, ensure_ascii=False), flush=True)
            except InferenceServerException as error:
                if error.status() == "StatusCode.UNAVAILABLE":
                    raise UserError(
                        f"no model answers at {server} by gRPC: `millrace serve` starts one and prints its address"
                    ) from error
                faulty = True
                print(f"error: {value}: the server at {server} says {error.message()}", file=sys.stderr)
            except (ValueError, OSError) as error:
                faulty = True
                reason = error.strerror if isinstance(error, OSError) else error
                print(f"error: {value}: {reason}", file=sys.stderr)
    sys.exit(FAILED if faulty else PASSED)


def project() -> Path:
    """The project's root, which holds dvc.yaml.

    Raises:
        Misuse: there is none at or above the current folder.
    """
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), None)
    if root is None:
        raise Misuse(f"{here} is not inside a millrace project: there is no dvc.yaml here or above")
    if not (root / "params.yaml").exists():
        raise Misuse(f"{root / 'params.yaml'} is missing: restore it with `git checkout params.yaml`")
    return root


def exported() -> dict[str, Path]:
    """Where everything of the graph lies, once there is an exported model.

    Raises:
        UserError: there is none.
    """
    from stages import params

    root = project()
    paths = {name: root / path for name, path in params.paths(root / "dvc.yaml").items()}
    if not paths["manifest"].exists():
        raise UserError("there is no exported model yet: make one with `millrace run`")
    return paths


def child(command: list[str], how: How = "spare") -> int:
    """Run a command that does not outlive this one, on this terminal; its exit code. Ctrl-C ends both."""
    with Children() as children, children.start(command, how=how, shown=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            children.end()
            process.wait()
    print("interrupted: the same command goes on from here", file=sys.stderr)
    sys.exit(INTERRUPTED)


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
            print(f"  refused: {criterion['reason']}")


if __name__ == "__main__":
    main()
