"""Run another program's module so that its printing cannot fail: `python -m stages.core.run_module dvc repro`.

DVC fails if nobody reads its output: the exit code of a run would depend on the terminal.
"""

from __future__ import annotations

import runpy
import sys

from stages.core.command import reporting

if __name__ == "__main__":
    del sys.argv[0]
    reporting(lambda: runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True))
