"""Read which releases saved answers name."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core.errors import Misuse


def named(answer: str) -> list[str]:
    """Return the releases that a saved answer names.

    Args:
        answer: a release's id, JSON, or the path of a file with JSON, JSON lines, CSV or Parquet.

    Raises:
        Misuse: it names no release, or cannot be read.
    """
    path = Path(answer)
    if re.fullmatch("[0-9a-f]{12}", answer):
        return [answer]
    try:
        if answer.lstrip().startswith(("{", "[")):
            values = dict.fromkeys(_in_json(json.loads(answer)))
        elif path.exists():
            values = dict.fromkeys(_in_file(path))
        else:
            raise Misuse("trace-no-answers", f"{answer} is no release (12 hex digits), no existing file and no JSON")
    except (ValueError, OSError) as error:
        raise Misuse("trace-unreadable", f"{answer} cannot be read as answers: {error}") from error
    releases = [release for release in values if release]
    if not releases:
        raise Misuse("trace-no-release", f"{answer} names no release: give answers that have their `release`")
    return releases


def _in_file(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        columns = ["release"] if "release" in pq.read_schema(path).names else []
        for column in pq.read_table(path, columns=columns).columns:
            yield from column.unique().to_pylist()
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from (row.get("release") or "" for row in csv.DictReader(file))
    else:
        text = path.read_text(encoding="utf-8")
        try:
            yield from _in_json(json.loads(text))
        except ValueError:
            for line in text.splitlines():
                yield from _in_json(json.loads(line)) if line.strip() else ()


def _in_json(tree: Any) -> Iterator[str]:
    """Yield the releases in JSON: values of the key `release`, or Triton's output `release` as ASCII codes or text."""
    if isinstance(tree, list):
        for item in tree:
            yield from _in_json(item)
    elif isinstance(tree, dict):
        if isinstance(tree.get("release"), str):
            yield tree["release"]
        elif tree.get("name") == "release":
            data = tree.get("data", [])
            if tree.get("datatype") == "UINT8":
                data = [bytes(data[first : first + 12]).decode("ascii") for first in range(0, len(data), 12)]
            yield from map(str, data)
        else:
            yield from _in_json(list(tree.values()))
