"""The first import of every command: Ctrl-C while the others are being imported ends it without Python's traceback."""

from __future__ import annotations

import os
import signal
import sys

CODE = 130  # the exit code of what Ctrl-C has ended
OURS = ("stages", "serving", "flows", "millrace")


def raised() -> None:
    """From now on let Ctrl-C raise KeyboardInterrupt: somebody is there to catch it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def quiet() -> None:
    """Until then let it end this process, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(*_: object) -> None:
    os._exit(CODE)


_spec = getattr(sys.modules["__main__"], "__spec__", None)
if _spec is not None and _spec.name.partition(".")[0] in OURS:
    quiet()
