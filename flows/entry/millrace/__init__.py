"""The `millrace` command. It uses this project's packages even if PYTHONPATH has others of the same names."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command line."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from stages.core import interrupts

    interrupts.quiet()
    from flows.cli import main as run

    run()


if __name__ == "__main__":
    main()
