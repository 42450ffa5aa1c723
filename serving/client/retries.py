"""How long a request is retried: the pauses between its attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


def pauses(retry_s: float) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt, until `retry_s` from now.

    They double each time, less a random part, so that many clients do not come back at the same moment.
    """
    deadline = time.monotonic() + retry_s

    def remaining() -> Iterator[float]:
        pause_s = FIRST_PAUSE_S
        while time.monotonic() + pause_s <= deadline:
            yield pause_s * random.uniform(0.5, 1)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    return remaining()
