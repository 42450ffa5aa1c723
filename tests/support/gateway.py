"""A gateway before a server, with TLS and a token that each request must have. It passes everything else on."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Files:
    """PEM files: an authority, the certificates that it signed for the server and a client, and another authority."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    other: Path
    elsewhere: tuple[Path, Path]  # for another name than the server's


def certificates(folder: Path) -> Files:
    """Make all of them."""
    signer, key = _signed("authority", None, None)
    stranger, _ = _signed("stranger", None, None)
    pairs = {}
    for name, place in (("server", "127.0.0.1"), ("client", "127.0.0.1"), ("elsewhere", "192.0.2.1")):
        made, its_key = _signed(name, signer, key, place)
        pairs[name] = (_write(folder / f"{name}.pem", made), _write(folder / f"{name}.key", its_key))
    return Files(_write(folder / "ca.pem", signer), other=_write(folder / "other.pem", stranger), **pairs)


@contextmanager
def https(backend: str, pair: tuple[Path, Path], token: str = "", client_ca: Path | None = None) -> Iterator[str]:
    """Yield HOST:PORT of a gateway that passes HTTP on to `backend`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given = self.headers.get("Authorization")
            if token and given != f"Bearer {token}":
                self.answer(403 if given else 401, {}, b"<html>no</html>")
                return
            connection = http.client.HTTPConnection(backend)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            kept = {name: value for name, value in response.getheaders() if name.startswith("Inference-")}
            self.answer(response.status, kept, content)
            connection.close()

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(*pair)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, address: Any) -> None:  # in the request's own thread
            with context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, address)

        def handle_error(self, *_: object) -> None:
            pass  # a client that does not trust us

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpcs(backend: str, pair: tuple[Path, Path], token: str = "", client_ca: Path | None = None) -> Iterator[str]:
    """Yield HOST:PORT of a gateway that passes gRPC on to `backend`."""
    with grpc.insecure_channel(backend) as channel:

        class Forward(grpc.GenericRpcHandler):
            def service(self, details: Any) -> Any:
                given = dict(details.invocation_metadata).get("authorization")

                def forward(request: bytes, context: Any) -> Any:
                    if token and given != f"Bearer {token}":
                        denied = grpc.StatusCode.PERMISSION_DENIED if given else grpc.StatusCode.UNAUTHENTICATED
                        context.abort(denied, "no")
                    try:
                        return channel.unary_unary(details.method)(request)
                    except grpc.RpcError as error:
                        context.abort(error.code(), error.details())

                return grpc.unary_unary_rpc_method_handler(forward)

        server = grpc.server(ThreadPoolExecutor(8), handlers=[Forward()])
        chain, key = (file.read_bytes() for file in pair)
        authority = client_ca.read_bytes() if client_ca else None
        credentials = grpc.ssl_server_credentials([(key, chain)], authority, authority is not None)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def _signed(name: str, signer: Any, signing_key: Any, place: str = "") -> tuple[Any, Any]:
    """Make a certificate and its key; without a signer it is an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if place:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(place))])
        made = made.add_extension(names, critical=False)
    return made.sign(signing_key or key, hashes.SHA256()), key


def _write(path: Path, content: Any) -> Path:
    encoding = serialization.Encoding.PEM
    if isinstance(content, x509.Certificate):
        path.write_bytes(content.public_bytes(encoding))
    else:
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(content.private_bytes(encoding, *plain))
    return path
