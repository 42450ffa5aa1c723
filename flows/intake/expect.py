"""Infers expectations from the ingested table and writes them to params.yaml, for a person to correct."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import preflight
from stages.core import command
from stages.core.errors import Misuse, UserError
from stages.schema import Column
from stages.settings import params, sections
from stages.validation import expectations

if TYPE_CHECKING:
    import pandas as pd


def main(force: bool = False) -> None:
    """Ingest the data, infer expectations, write and show them. Existing ones are only replaced with `force`."""
    settings, paths = params.parse(), params.paths()
    preflight.data(Path(settings.data.path), Path(paths["builtin"]), settings.data.builtin)
    ingest()
    rows = read(Path(paths["table"]))
    declared = settings.schema.unfitted()
    columns = (*declared.features, declared.target)
    written = settings.validate.columns
    inferred = {column.name: infer(column, rows) for column in columns}
    kept = {} if force else {name: sorted(set(inferred[name]) & set(written.get(name, {}))) for name in inferred}
    new = {
        name: {key: inferred[name][key] for key in inferred[name] if key not in kept.get(name, ())} for name in inferred
    }
    for column in columns:
        check(column, written.get(column.name, {}) | new[column.name])
    params.merge({"validate": {"columns": {name: options for name, options in new.items() if options}}})
    show(columns, written, new, kept)
    print("Next: correct validate.columns in params.yaml, and `millrace run`")


def ingest() -> None:
    """Run `dvc repro` up to the table."""
    process = subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "ingest"], check=False)
    if process.returncode:
        raise UserError(
            "data-not-ingested", "the data could not be ingested, for the reason above; params.yaml is unchanged"
        )


def read(table: Path) -> pd.DataFrame:
    """Read the table without the bytes of files; their facts are columns of their own."""
    import pyarrow as pa
    from pyarrow import parquet

    names = [field.name for field in parquet.read_schema(table) if not pa.types.is_binary(field.type)]
    return parquet.read_table(table, columns=names).to_pandas()


def infer(column: Column, rows: pd.DataFrame) -> dict[str, Any]:
    """The expectations that the column's kind infers, as options."""
    return expectations.of(column.kind).infer(column.name, rows)


def check(column: Column, options: dict[str, Any]) -> None:
    """Check the options.

    Raises:
        Misuse: inferred options contradict existing ones.
    """
    key = f"validate.columns.{column.name}"
    try:
        sections.options(expectations.of(column.kind), options, key)
    except ValueError as error:
        raise Misuse(
            "params-contradiction", f"{error}: correct or remove {key} in params.yaml, or replace it with --force"
        ) from error


def show(columns: tuple[Column, ...], written: dict[str, Any], new: dict[str, Any], kept: dict[str, list[str]]) -> None:
    """Print the inferred and the kept expectations as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="expectations: see validate.columns in params.yaml", title_justify="left")
    for heading in ("column", "kind", "inferred", "kept as you wrote it"):
        table.add_column(heading)
    for column in columns:
        inferred = [f"{key} {shorten(value)}" for key, value in new[column.name].items()]
        kept_options = [f"{key} {shorten(written[column.name][key])}" for key in kept.get(column.name, [])]
        kind = column.kind.removeprefix("target_")
        table.add_row(*map(Text, (column.name, kind, ", ".join(inferred), ", ".join(kept_options))))
    Console().print(table)


def shorten(value: Any) -> str:
    """Format an option's value; of a long list only the first items."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    more = [f"{len(value) - 6} more"] if len(value) > 6 else []
    return f"[{', '.join([*map(str, value[:6]), *more])}]"


if __name__ == "__main__":
    command.run_with_options(main)
