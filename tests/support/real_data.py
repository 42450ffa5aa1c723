"""Real data sets, where they are on this machine."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

from tests.support.project import ROOT

DATA = Path(os.environ.get("MILLRACE_DATA", ROOT.parent / "shared" / "data"))


def some_of_many(folder: str, names: list[str]) -> list[str]:
    """To leave out: nine of ten files where there are hundreds."""
    return [name for place, name in enumerate(sorted(names)) if len(names) > 100 and place % 10]


def shorten(path: Path) -> None:
    """Leave the first tenth of an IDX file."""
    content = gzip.decompress(path.read_bytes())
    count, head = struct.unpack(">i", content[4:8])[0], 4 + 4 * content[3]
    each = (len(content) - head) // count
    left = content[:4] + struct.pack(">i", count // 10) + content[8 : head + count // 10 * each]
    path.write_bytes(gzip.compress(left, 1))
