"""Another program's module whose printing cannot fail: `python -m stages.core.printing dvc repro`.

DVC ends with an error where nobody reads what it prints: the exit code of a run would be the terminal's.
"""

from __future__ import annotations

import runpy
import sys

from stages.core.command import reporting

if __name__ == "__main__":
    del sys.argv[0]
    reporting(lambda: runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True))
