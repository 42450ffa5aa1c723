"""The errors between a client and its server."""

from __future__ import annotations

import http.client
import re
import ssl
import sys
from typing import Any

from stages.core.errors import CodedError

# gRPC's status codes, and the HTTP statuses of a proxy that gRPC maps to the same.
_UNAVAILABLE = {"UNAVAILABLE", "429", "502", "503", "504"}
_DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "401", "403"}
_NOT_TRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|Peer name .* is not in peer cert|Hostname Verification|_ALERT_")
_NOT_TLS = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST")
_CUT = re.compile(r"\bEOF\b|_EOF_|Socket closed|reset by peer|disconnected|Broken pipe|ssl:\S+ \[None\]", re.IGNORECASE)


class Unavailable(CodedError, ConnectionError):
    """No model answers at the address, also after several attempts."""


class TlsError(CodedError, ConnectionError):
    """The client or the server does not trust the other's certificate, or one end does not use TLS."""


class AccessDenied(CodedError, PermissionError):
    """The server requires other credentials: HTTP 401 or 403, gRPC's UNAUTHENTICATED or PERMISSION_DENIED."""


class ServerError(CodedError, RuntimeError):
    """The server answers with an error: it does not have the model, or has failed."""


class RowError(CodedError, ValueError):
    """A row that the model cannot take.

    `row`: its number from 0; None for a single row. `column`: the column at fault; "" if that is not known.
    """

    def __init__(self, code: str, reason: str, column: str = "", row: int | None = None, place: str = "") -> None:
        self.reason, self.column, self.row, self._place = reason, column, row, place
        place = place or ("" if row is None else f"row {row}")
        super().__init__(code, ": ".join(filter(None, (place, "" if repr(column) in reason else column, reason))))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.reason, self.column, self.row, self._place), self.__dict__

    def at(self, row: int | None, place: str = "") -> RowError:
        """Return the same error for another row. `place`: where the row is in a file, if it was read from one."""
        return RowError(self.code, self.reason, self.column, row, place)


def explained(error: Exception, server: str, protocol: str, timeout_s: float) -> Exception:
    """Return the client's exception for one of a library; `error` itself where it is not a library's."""
    from tritonclient.utils import InferenceServerException

    late = TimeoutError(f"{server} did not answer within {timeout_s:g} s")
    if isinstance(error, InferenceServerException):
        return _of_status((error.status() or "").removeprefix("StatusCode."), error.message(), server, protocol, late)
    if (ssl_error := _ssl_error(error)) is not None:
        return tls_error(server, str(ssl_error))
    if isinstance(error, TimeoutError):
        return late
    aiohttp = sys.modules.get("aiohttp")
    lost = (OSError, http.client.HTTPException, *((aiohttp.ClientError,) if aiohttp else ()))
    reason = str(error).partition("\n")[0] or type(error).__name__
    return _unavailable(server, protocol, reason) if isinstance(error, lost) else error


def tls_error(server: str, reason: str) -> TlsError:
    """Return a TlsError that says what to do."""
    if _NOT_TLS.search(reason):
        return TlsError("server-without-tls", f"{server} does not speak TLS: write grpc:// or http:// ({reason})")
    if "_ALERT_" in reason:
        return TlsError(
            "server-rejects-certificate", f"{server} rejects our certificate: give one with `certificate` ({reason})"
        )
    return TlsError(
        "server-not-trusted", f"{server} has a certificate that is not trusted: give its authority with `ca` ({reason})"
    )


def _of_status(status: str, message: str, server: str, protocol: str, late: TimeoutError) -> Exception:
    if status in _DENIED or "is restricted, expecting header" in message:  # which Triton's gRPC calls UNAVAILABLE
        return AccessDenied("server-denies-access", f"{server} denies access: give `headers` or a `token` ({message})")
    if status in _UNAVAILABLE and (_NOT_TRUSTED.search(message) or _NOT_TLS.search(message)):
        return tls_error(server, message.rpartition("; last error: ")[2])
    if status in _UNAVAILABLE or "has no available versions" in message:  # while a server ends
        return _unavailable(server, protocol, message)
    if status in ("INVALID_ARGUMENT", "400"):
        return RowError("row-rejected", re.sub(r"^in ensemble '.*?', ", "", message))
    return late if status == "DEADLINE_EXCEEDED" else ServerError("server-failed", f"{server} reports: {message}")


def _unavailable(server: str, protocol: str, reason: str) -> Unavailable:
    if "s://" in server and _CUT.search(reason):
        reason += "; a server without TLS, or one that requires a client certificate, may cut connections like this"
    return Unavailable("server-unavailable", f"no model answers at {server} by {protocol} ({reason})")


def _ssl_error(error: Exception) -> ssl.SSLError | None:
    """Return the TLS error behind `error`; None where there is none, or where the connection was merely cut."""
    causes = (error, error.__cause__, getattr(error, "certificate_error", None), getattr(error, "os_error", None))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return cause
    return None
