"""What can go wrong between a client and its server, and for how long a request is sent again."""

from __future__ import annotations

import http.client
import random
import re
import ssl
import sys
import time
from collections.abc import Iterator

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
# As gRPC itself reads what a proxy answers.
_UNAVAILABLE = {"UNAVAILABLE", "429", "502", "503", "504"}
_DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "401", "403"}
_NOT_TRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|Peer name .* is not in peer cert|Hostname Verification|_ALERT_")
_NOT_TLS = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST")
_CUT = re.compile(r"\bEOF\b|_EOF_|Socket closed|reset by peer|disconnected|Broken pipe|ssl:\S+ \[None\]", re.IGNORECASE)


class Unavailable(ConnectionError):
    """No model answers there, and none did when the request was sent again."""


class TlsError(ConnectionError):
    """The server's certificate is not trusted, the server does not trust ours, or one end speaks no TLS."""


class AccessDenied(PermissionError):
    """The server wants other credentials: HTTP's 401 or 403, gRPC's UNAUTHENTICATED or PERMISSION_DENIED."""


class ServerError(RuntimeError):
    """The server answers, but not with what was asked of it: it lacks the model, or has failed."""


class RowError(ValueError):
    """A row that the model cannot take. `row`: its number from 0, None for a single row; `column`: "" if not known."""

    def __init__(self, reason: str, column: str = "", row: int | None = None, place: str = "") -> None:
        self.reason, self.column, self.row = reason, column, row
        place = place or ("" if row is None else f"row {row}")
        super().__init__(": ".join(filter(None, (place, "" if repr(column) in reason else column, reason))))

    def at(self, row: int | None, place: str = "") -> RowError:
        """The same of another row, which lies at `place` if it was read from a file."""
        return RowError(self.reason, self.column, row, place)


def pauses(retry_s: float) -> Iterator[float]:
    """Seconds to wait before each further try: doubling, by chance a little less, until `retry_s` from now is over."""
    deadline, longest_s = time.monotonic() + retry_s, FIRST_PAUSE_S

    def left() -> Iterator[float]:
        pause_s = longest_s
        while time.monotonic() + pause_s <= deadline:
            yield pause_s * random.uniform(0.5, 1)  # so that many clients do not come back at once
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    return left()


def explained(error: Exception, server: str, protocol: str, timeout_s: float) -> Exception:
    """The exception that a caller sees for one of the libraries below, or `error` itself."""
    from tritonclient.utils import InferenceServerException

    late = TimeoutError(f"{server} did not answer within {timeout_s:g} s")
    if isinstance(error, InferenceServerException):
        return _of_status((error.status() or "").removeprefix("StatusCode."), error.message(), server, protocol, late)
    if (broken := _ssl_error(error)) is not None:
        return tls_error(server, str(broken))
    if isinstance(error, TimeoutError):
        return late
    aiohttp = sys.modules.get("aiohttp")
    lost = (OSError, http.client.HTTPException, *((aiohttp.ClientError,) if aiohttp else ()))
    reason = str(error).partition("\n")[0] or type(error).__name__
    return _unavailable(server, protocol, reason) if isinstance(error, lost) else error


def tls_error(server: str, reason: str) -> TlsError:
    """With what to do about it."""
    if _NOT_TLS.search(reason):
        return TlsError(f"{server} does not speak TLS: write grpc:// or http:// ({reason})")
    if "_ALERT_" in reason:
        return TlsError(f"{server} refuses our certificate: name one with `certificate` ({reason})")
    return TlsError(f"{server} has a certificate that is not trusted: name its authority with `ca` ({reason})")


def _of_status(status: str, message: str, server: str, protocol: str, late: TimeoutError) -> Exception:
    if status in _DENIED or "is restricted, expecting header" in message:  # which Triton's gRPC calls UNAVAILABLE
        return AccessDenied(f"{server} denies access: give `headers` or a `token` ({message})")
    if status in _UNAVAILABLE and (_NOT_TRUSTED.search(message) or _NOT_TLS.search(message)):
        return tls_error(server, message.rpartition("; last error: ")[2])
    if status in _UNAVAILABLE or "has no available versions" in message:  # while a server ends
        return _unavailable(server, protocol, message)
    if status in ("INVALID_ARGUMENT", "400"):
        return RowError(re.sub(r"^in ensemble '.*?', ", "", message))
    return late if status == "DEADLINE_EXCEEDED" else ServerError(f"{server} says: {message}")


def _unavailable(server: str, protocol: str, reason: str) -> Unavailable:
    if "s://" in server and _CUT.search(reason):
        reason += "; a server without TLS, or one that wants a client's certificate, may cut connections like this"
    return Unavailable(f"no model answers at {server} by {protocol} ({reason})")


def _ssl_error(error: Exception) -> ssl.SSLError | None:
    """What TLS itself complains of, unless the connection was merely cut."""
    for one in (error, error.__cause__, getattr(error, "certificate_error", None), getattr(error, "os_error", None)):
        if isinstance(one, ssl.SSLError) and not isinstance(one, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return one
    return None
