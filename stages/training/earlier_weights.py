"""The weights that a network may begin with."""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import Misuse
from stages.tables.table import sha256


def pinned(path: Path, expected: str) -> Path:
    """The path of earlier weights, if its bytes are those that params pin.

    Raises:
        Misuse: no such file, or another SHA-256.
    """
    if not path.is_file():
        raise Misuse(f"params.yaml: model.init_from: there is no file {path}")
    if (found := sha256(path)) != expected:
        raise Misuse(
            f"params.yaml: model.init_sha256: {path} has {found}; write that, if these are the weights you mean"
        )
    return path
