"""The first import of every command, so that Ctrl-C during the other imports ends it without a traceback."""

from __future__ import annotations

import os
import signal
import sys

CODE = 130  # exit code after Ctrl-C
OURS = ("stages", "serving", "flows", "millrace")


def raised() -> None:
    """Make Ctrl-C raise KeyboardInterrupt, now that the caller catches it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def quiet() -> None:
    """Make Ctrl-C end this process at once, unless the signal is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(*_: object) -> None:
    os._exit(CODE)


_spec = getattr(sys.modules["__main__"], "__spec__", None)
if _spec is not None and _spec.name.partition(".")[0] in OURS:
    quiet()
