"""What a recipe needs to know of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from flows.intake.guess import Guess
from flows.intake.recipe import Facts
from flows.intake.recipes import Seen
from stages.schema import Kind, Schema, kind
from stages.settings import sections
from stages.tables import sources
from stages.tables.sources import Sample

# The columns of a data set that is no table, and their kinds.
NO_TABLE = ([Guess("image", "image", 0.0, 0, "")], Guess("label", "class", 0.0, 0, ""))
FEW = 200  # samples whose values are looked at


def facts(
    path: Path,
    format_name: str,
    options: Any,
    features: dict[str, Any],
    target: dict[str, Any],
    rows: int | None = None,
) -> Facts:
    """Count the rows, unless their number is known, and look at the first values of columns of files."""
    schema = sections.declared(
        *(
            {name: value if isinstance(value, dict) else {"kind": value} for name, value in columns.items()}
            for columns in (features, target)
        )
    )
    source = sources.source(format_name)
    parsed = sections.options(source, options, "data.options")
    count = rows or sum(
        sum(isinstance(item, Sample) for item in source.read(chunk)) for chunk in source.chunks(path, schema, parsed)
    )
    first = list(islice(samples(source, path, schema, parsed), FEW))
    seen = {}
    for columns in schema.groups().values():
        name, module = columns[0].kind, kind(columns[0].kind)
        few = [sample.values[columns[0].name] for sample in first]
        values = [value for value in few if module.RAW == "bytes" and is_whole(module, value)]
        same_kind = sum(column.kind == name for column in schema.features)
        seen[name] = Seen(count, same_kind, module.facts(map(module.raw, values)) if values else {})
    return Facts(count, seen)


def is_whole(module: Kind, value: Any) -> bool:
    """Whether a value can be read; what to do where it cannot is for `ingest` to say."""
    try:
        module.facts([module.raw(value)])
    except (OSError, ValueError):
        return False
    return True


def samples(source: Any, path: Path, schema: Schema, options: Any) -> Iterator[Sample]:
    """The samples of the data set, without what cannot be read."""
    for chunk in source.chunks(path, schema, options):
        yield from (item for item in source.read(chunk) if isinstance(item, Sample))
