"""`python -m benchmarks [NAME ...]`: run benchmarks and write their results into docs/figures.md.

`python -m benchmarks fuzz --seed 7 --minutes 20` chooses the requests and the duration.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from typing import Any

from benchmarks import pages
from benchmarks.workspace import ROOT
from stages.core.host import fingerprint
from stages.core.printing import protect_printing

NAMES = ("graph", "ingestion", "tables", "training", "client", "releases", "canary", "faults", "peers", "presets")
NAMES += ("error_rates", "yardstick_rates", "latency_rates", "fuzz", "kills", "first_hour")
STORE = ROOT / "benchmarks" / "figures.json"


def main(names: list[str], fuzz: dict[str, Any]) -> None:
    """Run the named benchmarks, or all; results of the others are kept. `fuzz`: arguments of that benchmark."""
    protect_printing()
    kept: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    for name in names or NAMES:
        print(f"{name} ...", flush=True)
        results = importlib.import_module(f"benchmarks.{name}").main(**(fuzz if name == "fuzz" else {}))
        kept[name] = {"host": f"{fingerprint()['cpu']}, {os.cpu_count()} cores, Python {platform.python_version()}"}
        kept[name]["results"] = results
        STORE.write_text(json.dumps(kept, indent=1) + "\n")
        for result in results:
            print(f"  {result['what']}: {result['figure']} ({result['goal']}; {result['with']})", flush=True)
    pages.write(ROOT / "docs" / "figures.md", rows(kept))


def rows(kept: dict[str, Any]) -> list[str]:
    """A Markdown table of all results."""
    lines = ["| what | measured | goal | with |", "|---|---|---|---|"]
    for name in NAMES:
        lines += [
            "| " + " | ".join(result[key] for key in ("what", "figure", "goal", "with")) + " |"
            for result in kept.get(name, {}).get("results", [])
        ]
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=0, help="for fuzz")
    parser.add_argument("--minutes", type=float, default=5.0, help="for fuzz")
    given = parser.parse_args()
    main(given.names, {"seed": given.seed, "minutes": given.minutes})
