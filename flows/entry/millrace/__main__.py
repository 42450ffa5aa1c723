"""`python flows/entry/millrace`: the command without an installed script, by the place of this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from millrace import main

main()
