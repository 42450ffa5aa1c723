"""How to connect to a server: its address, TLS, credentials and a proxy."""

from __future__ import annotations

import base64
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from serving.triton import wire

_PORTS = {"grpc": None, "grpcs": 443, "http": 80, "https": 443}
NAMES = {"grpc": "gRPC", "http": "HTTP"}


@dataclass(frozen=True)
class Address:
    """The address of a server, such as grpcs://models.example.org or https://example.org:8443/triton."""

    protocol: str  # "grpc" or "http"
    encrypted: bool
    host: str
    port: int
    path: str = ""  # the part of an HTTP path before /v2

    @classmethod
    def parse(cls, server: str) -> Address:
        """Parse an address with grpc://, grpcs://, http:// or https://, or HOST:PORT for gRPC.

        Raises:
            ValueError: it is not such an address.
        """
        scheme, _, rest = server.rpartition("://")
        scheme = scheme or "grpc"
        try:
            parts = urlsplit(f"//{rest}")
            port = parts.port or _PORTS.get(scheme)
        except ValueError:
            port = None
        if port is None or not parts.hostname or scheme not in _PORTS:
            raise ValueError(
                f"{server!r} is not the address of a server: write HOST:PORT, or begin it with grpc://, grpcs://,"
                " http:// or https://"
            )
        if parts.username is not None:
            raise ValueError("credentials do not belong in an address: give `headers` or a `token`")
        path = parts.path.rstrip("/")
        if parts.query or parts.fragment or (path and scheme.startswith("grpc")):
            raise ValueError(
                f"{server!r}: leave out what follows the {'port' if scheme.startswith('grpc') else 'path'}"
            )
        return cls(scheme.removesuffix("s"), scheme.endswith("s"), parts.hostname, port, path)

    @property
    def netloc(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL for HTTP."""
        return f"http{'s' if self.encrypted else ''}://{self.netloc}{self.path}"

    def proxy(self) -> Proxy | None:
        """Return the proxy that the environment names for HTTP to this address; None for this machine itself."""
        if wire.is_loopback(self.netloc) or urllib.request.proxy_bypass(self.host):
            return None
        url = urllib.request.getproxies().get("https" if self.encrypted else "http")
        return Proxy.parse(url) if url else None


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Parse [http://][USER:PASSWORD@]HOST[:PORT]."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        headers = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return cls(parts.hostname or "", parts.port or 80, headers)


@dataclass(frozen=True)
class Tls:
    """The certificates of a TLS connection: files in PEM form."""

    ca: Path | None  # trusted authorities; by default those of the system, for gRPC its own
    certificate: tuple[Path, Path] | None  # the client's chain and key

    def context(self) -> ssl.SSLContext:
        """Return the settings for HTTP.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file has other contents.
        """
        for file in filter(None, (self.ca, *(self.certificate or ()))):
            file.read_bytes()  # its error names the file, which the ssl module's does not
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise ValueError(f"{self.ca} has no certificates in PEM form ({error})") from error
        if self.certificate:
            try:
                context.load_cert_chain(*self.certificate, password="")  # so that it does not prompt for one
            except ssl.SSLError as error:
                names = " and ".join(map(str, self.certificate))
                raise ValueError(
                    f"{names} are not a certificate in PEM form and its unencrypted key ({error})"
                ) from error
        return context

    def credentials(self) -> Any:
        """Return the settings for gRPC."""
        import grpc

        chain, key = self.certificate or (None, None)
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes() if self.ca else None,
            private_key=key.read_bytes() if key else None,
            certificate_chain=chain.read_bytes() if chain else None,
        )


def checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Check headers and return them with their names in lower case, as gRPC requires.

    Raises:
        ValueError: a header cannot be sent.
    """
    for name, value in headers.items():
        if not (name and all(char.isalnum() or char in "-_." for char in name) and name.isascii()):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if not isinstance(value, str):
            raise ValueError(f"the header {name!r} is {value!r}, not text")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the header {name!r} has characters other than printable ASCII")
    return {name.lower(): value for name, value in headers.items()}
