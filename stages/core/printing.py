"""Printing that never fails, whatever reads it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any


def protect_printing() -> None:
    """Keep `print` from failing: escape characters that the terminal cannot show, drop output that nobody reads."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _discard(number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            lossy = _LossyStream(number, "w", closefd=False)
            line_buffering, write_through = stream.line_buffering or number == 2, stream.write_through  # python -u
            buffer = lossy if write_through else io.BufferedWriter(lossy)
            replacement = io.TextIOWrapper(
                buffer, stream.encoding, "backslashreplace", line_buffering=line_buffering, write_through=write_through
            )
            setattr(sys, name, replacement)


class _LossyStream(io.FileIO):
    """A stream that drops what it cannot write, because its reader is gone or the disk is full."""

    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(content)
        return len(content)


def _discard(number: int) -> None:
    """Open a closed descriptor on the null device, for child processes as well."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nothing, number)
        os.close(nothing)
