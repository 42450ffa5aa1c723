"""Earlier weights that a network is initialized with."""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import Misuse
from stages.core.files import sha256


def pinned(path: Path, expected: str) -> Path:
    """Return the path of earlier weights after a check of their SHA-256.

    Raises:
        Misuse: there is no such file, or it has another SHA-256.
    """
    if not path.is_file():
        raise Misuse("train-weights-missing", f"params.yaml: model.init_from: there is no file {path}")
    if (digest := sha256(path)) != expected:
        raise Misuse(
            "train-weights-changed",
            f"params.yaml: model.init_sha256: {path} has {digest}; write that, if these are the weights you mean",
        )
    return path
