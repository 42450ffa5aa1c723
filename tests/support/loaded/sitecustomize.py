"""First on the path of the clone in which everything runs: each stage writes which of our files it has loaded.

Deprecation warnings of our own code are errors there, as in the tests themselves.
"""

import atexit
import json
import os
import sys
import warnings


def write() -> None:
    folder, words = os.environ.get("LOADED", ""), sys.orig_argv
    stage = next((word.removeprefix("stages.") for word in words if word.startswith("stages.")), "")
    if folder and stage and "-m" in words:
        files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
        ours = sorted(os.path.relpath(name) for name in files if name.startswith(os.getcwd() + os.sep + "s"))
        with open(os.path.join(folder, f"{stage}.json"), "w", encoding="utf-8") as file:
            json.dump([name for name in ours if name.startswith(("stages/", "serving/"))], file)


atexit.register(write)
for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=category, module=r"(__main__|stages|serving|flows)\b")
