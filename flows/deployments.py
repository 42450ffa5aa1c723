"""`python -m flows.deployments`: the former name of `python -m flows.schedule`, kept for scripts that use it."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import sys

from flows.schedule import main

if __name__ == "__main__":
    print("note: `python -m flows.deployments` is now `python -m flows.schedule`", file=sys.stderr)
    sys.exit(main())
