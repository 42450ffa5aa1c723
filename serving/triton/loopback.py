"""HTTP requests to a server on this machine: no proxy, and never longer than a deadline."""

from __future__ import annotations

import http.client
import time

_CHUNK = 1 << 16


def get(address: str, path: str, timeout_s: float = 2.0) -> bytes | None:
    """Return the body of a response with status 200, or None where there is no such response in time.

    Args:
        address: HOST:PORT.
        path: the path to GET, such as /metrics.
        timeout_s: seconds that the whole request may take.
    """
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        content = bytearray()
        while chunk := response.read1(_CHUNK):
            content += chunk
            if time.monotonic() > deadline:
                return None
        return bytes(content) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
