"""Read raw files of any format into one table with a row for each sample, and list what cannot be read as rejects."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import csv
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stages.core import command
from stages.core.errors import UserError
from stages.core.files import replacing
from stages.core.progress import counting
from stages.schema import Schema
from stages.settings import params, section, sections
from stages.settings.split import SPLITS, Split
from stages.tables import overlooked, sources, workers
from stages.tables.rows import Layout, encode
from stages.tables.sources import Reject
from stages.tables.writer import Writer


class Tally(NamedTuple):
    """The numbers of rows and of rejects."""

    rows: int
    rejects: int
    reasons: tuple[Reject, ...]  # the first few


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    data: sections.Data
    schema: sections.Schema
    split: Split


def main(data: Path, table: Path, rejects: Path) -> None:
    """Read every sample in DATA into TABLE (Parquet), and list in REJECTS (CSV) what could not be read."""
    parameters = params.load("ingest", Parameters)
    schema = sections.declared(parameters.schema.features, parameters.schema.target)
    layout = Layout(schema, parameters.split.by, parameters.split.column, tuple(parameters.schema.keep))
    started = time.monotonic()
    with replacing(table) as rows, replacing(rejects) as faults:
        tally = ingest(data, parameters.data.format, parameters.data.options, layout, rows, faults, workers.cores())
    rate = tally.rows / (time.monotonic() - started)
    print(f"{data}: {tally.rows:,} rows, {tally.rejects:,} rejects, {rate:,.0f} rows/s")
    for note in overlooked.notes(data, parameters.data.format):
        print(f"  {note}")


def ingest(
    data: Path, format: str, options: dict[str, Any], layout: Layout, table: Path, rejects: Path, cores: int
) -> Tally:
    """Write `table` and `rejects` from the samples at `data`. Their bytes do not depend on `cores`.

    Raises:
        UserError: `data` is not of the format, or no sample can be read.
    """
    if not data.exists():
        raise UserError("data-not-found", f"{data} does not exist: bring your data there with `millrace data add`")
    source = sources.source(format)
    form = sections.options(source, options, "data.options")
    chunks = source.chunks(data, _wanted(source, data, format, form, layout), form)
    threads = isinstance(source, sources.Columnar) and not layout.has_facts  # else each row takes Python a while
    encoded = workers.in_order(functools.partial(encode, format=format, layout=layout), chunks, cores, threads)
    tally = Tally(0, 0, ())
    with (
        open(rejects, "w", newline="", encoding="utf-8", errors="backslashreplace") as opened,
        Writer(table, layout.arrow()) as rows,
        counting("samples") as count,
    ):
        faults = csv.writer(opened, lineterminator="\n")
        faults.writerow(Reject._fields)
        for batch, rejected in encoded:
            rows.add(batch)
            faults.writerows(rejected)
            count(len(batch) + len(rejected))
            tally = Tally(tally.rows + len(batch), tally.rejects + len(rejected), (*tally.reasons, *rejected)[:3])
    if not tally.rows:
        raise UserError("data-no-rows", f"no sample in {data} can be read: {_reasons(tally)}")
    return tally


def _wanted(source: sources.Source, data: Path, format: str, form: Any, layout: Layout) -> Schema:
    """The columns to read: those of the schema, and as categories the ones to split by and to keep.

    Raises:
        UserError: the data lack one that is not of the schema.
    """
    others = [(layout.column, "split.column")] if SPLITS[layout.by] else []
    others += [(name, "schema.keep") for name in layout.keep]
    there = source.columns(data, form) if others else []
    wanted = layout.schema
    for name, key in others:
        sources.require_column(name, there, f"{data} ({format})", key)
        wanted = sources.with_column(wanted, name)
    return wanted


def _reasons(tally: Tally) -> str:
    reasons = [f"{source} {reason}" for source, reason in tally.reasons]
    if tally.rejects > len(reasons):
        reasons.append(f"{tally.rejects - len(reasons):,} more")
    return "; ".join(reasons) or "it holds none"


if __name__ == "__main__":
    command.run(main)
