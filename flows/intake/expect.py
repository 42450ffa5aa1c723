"""Look at the ingested table and write what is expected of such data into params.yaml, for a person to edit."""

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
    """Ingest what changed, infer, write, show. What a person wrote stays as it is without `force`."""
    said, paths = params.parse(), params.paths()
    preflight.data(Path(said.data.path), Path(paths["builtin"]), said.data.builtin)
    ingest()
    rows = read(Path(paths["table"]))
    declared = said.schema_.unfitted()
    columns = (*declared.features, declared.target)
    written = said.validate_.columns
    found = {column.name: infer(column, rows) for column in columns}
    kept = {} if force else {name: sorted(set(found[name]) & set(written.get(name, {}))) for name in found}
    new = {name: {key: found[name][key] for key in found[name] if key not in kept.get(name, ())} for name in found}
    for column in columns:
        check(column, written.get(column.name, {}) | new[column.name])
    params.merge({"validate": {"columns": {name: options for name, options in new.items() if options}}})
    show(columns, written, new, kept)
    print("Next: mend validate.columns in params.yaml where more or less is to be expected, and `millrace run`")


def ingest() -> None:
    """`dvc repro` as far as the table."""
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "ingest"], check=False)
    if done.returncode:
        raise UserError("the data could not be ingested, for the reason above; params.yaml is as it was")


def read(table: Path) -> pd.DataFrame:
    """The table without its files' bytes, of which the facts tell."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    names = [field.name for field in parquet.read_schema(table) if not pa.types.is_binary(field.type)]
    return parquet.read_table(table, columns=names).to_pandas()


def infer(column: Column, rows: pd.DataFrame) -> dict[str, Any]:
    """The options that the column's kind infers."""
    return expectations.of(column.kind).infer(column.name, rows)


def check(column: Column, options: dict[str, Any]) -> None:
    """Raise Misuse where what is inferred does not go together with what a person wrote."""
    key = f"validate.columns.{column.name}"
    try:
        sections.options(expectations.of(column.kind), options, key)
    except ValueError as error:
        raise Misuse(f"{error}: mend or remove {key} in params.yaml, or replace it with --force") from error


def show(columns: tuple[Column, ...], written: dict[str, Any], new: dict[str, Any], kept: dict[str, list[str]]) -> None:
    """What is expected now, as a table, and what stayed as a person wrote it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="expected from now on: see validate.columns in params.yaml", title_justify="left")
    for heading in ("column", "kind", "inferred", "kept as you wrote it"):
        table.add_column(heading)
    for column in columns:
        inferred = [f"{key} {told(value)}" for key, value in new[column.name].items()]
        stayed = [f"{key} {told(written[column.name][key])}" for key in kept.get(column.name, [])]
        kind = column.kind.removeprefix("target_")
        table.add_row(*map(Text, (column.name, kind, ", ".join(inferred), ", ".join(stayed))))
    Console().print(table)


def told(value: Any) -> str:
    """An option's value in a few words."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    more = [f"{len(value) - 6} more"] if len(value) > 6 else []
    return f"[{', '.join([*map(str, value[:6]), *more])}]"


if __name__ == "__main__":
    command.run(main)
