"""Send one request and return its response, by gRPC or HTTP, for threads or for asyncio. Nothing is repeated here."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from serving.client.connection import Address, Tls
from serving.triton import wire

Headers = Mapping[str, str]
_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 50),  # gRPC's default of a second is longer than our first pauses
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_CHUNK = 1 << 16


class Transport(Protocol):
    """A connection to one server. Threads may share it."""

    def infer(self, model: str, inputs: list[Any], headers: Headers, timeout_s: float) -> Any:
        """Send inputs to a model; return tritonclient's result."""

    def config(self, model: str, headers: Headers, timeout_s: float) -> Any:
        """Return a model's configuration, as Triton's JSON has it."""

    def close(self) -> None:
        """Close the connections."""


class AsyncTransport(Protocol):
    """A connection to one server, for one event loop."""

    def infer(self, model: str, inputs: list[Any], headers: Headers, timeout_s: float) -> Awaitable[Any]:
        """Send inputs to a model; return tritonclient's result."""

    def config(self, model: str, headers: Headers, timeout_s: float) -> Awaitable[Any]:
        """Return a model's configuration, as Triton's JSON has it."""

    async def close(self) -> None:
        """Close the connections."""


def connect(address: Address, tls: Tls) -> Transport:
    """Return a transport for threads. Nothing is sent yet."""
    return (Grpc if address.protocol == "grpc" else Http)(address, tls)


def connect_async(address: Address, tls: Tls) -> AsyncTransport:
    """Return a transport for asyncio. Nothing is sent yet."""
    return (AsyncGrpc if address.protocol == "grpc" else AsyncHttp)(address, tls)


class Grpc:
    """A gRPC channel."""

    def __init__(self, address: Address, tls: Tls) -> None:
        import tritonclient.grpc

        self._client = tritonclient.grpc.InferenceServerClient(address.netloc, **_options(address, tls))

    def infer(self, model: str, inputs: list[Any], headers: Headers, timeout_s: float) -> Any:
        """As `Transport.infer`."""
        return self._client.infer(model, inputs, headers=dict(headers), client_timeout=timeout_s)

    def config(self, model: str, headers: Headers, timeout_s: float) -> Any:
        """As `Transport.config`."""
        options = {"headers": dict(headers), "client_timeout": timeout_s, "as_json": True}
        return self._client.get_model_config(model, **options)["config"]

    def close(self) -> None:
        """As `Transport.close`."""
        self._client.close()


class AsyncGrpc:
    """A channel of grpc.aio."""

    def __init__(self, address: Address, tls: Tls) -> None:
        import tritonclient.grpc.aio

        self._client = tritonclient.grpc.aio.InferenceServerClient(address.netloc, **_options(address, tls))

    async def infer(self, model: str, inputs: list[Any], headers: Headers, timeout_s: float) -> Any:
        """As `Transport.infer`."""
        async with asyncio.timeout(timeout_s):
            return await self._client.infer(model, inputs, headers=dict(headers))

    async def config(self, model: str, headers: Headers, timeout_s: float) -> Any:
        """As `Transport.config`."""
        async with asyncio.timeout(timeout_s):
            return (await self._client.get_model_config(model, headers=dict(headers), as_json=True))["config"]

    async def close(self) -> None:
        """As `Transport.close`."""
        await self._client.close()


class Http:
    """HTTP connections: one for each request under way, kept for later ones. tritonclient's cannot be shared."""

    def __init__(self, address: Address, tls: Tls) -> None:
        self._address, self._proxy = address, address.proxy()
        self._context = tls.context() if address.encrypted else None
        unencrypted = self._proxy is not None and not address.encrypted  # the proxy then takes the whole URL
        self._prefix = address.url if unencrypted else address.path
        self._proxy_headers = self._proxy.headers if self._proxy and unencrypted else {}
        self._free: list[http.client.HTTPConnection] = []  # append and pop are atomic

    def infer(self, model: str, inputs: list[Any], headers: Headers, timeout_s: float) -> Any:
        """As `Transport.infer`."""
        body, extra = _request(inputs)
        return _result(*self._send("POST", _infer(model), {**headers, **extra}, body, timeout_s))

    def config(self, model: str, headers: Headers, timeout_s: float) -> Any:
        """As `Transport.config`."""
        return _object(self._send("GET", _config(model), headers, None, timeout_s)[0])

    def close(self) -> None:
        """As `Transport.close`."""
        while self._free:
            self._free.pop().close()

    def _send(
        self, method: str, path: str, headers: Headers, body: bytes | None, timeout_s: float
    ) -> tuple[bytes, Headers]:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                connection, used = self._free.pop(), True
            except IndexError:
                connection, used = self._connection(), False
            try:
                return self._exchange(connection, method, path, headers, body, deadline)
            except BaseException as error:
                connection.close()
                if not (used and isinstance(error, ConnectionError)):  # the server may have closed a used one
                    raise

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | None,
        deadline: float,
    ) -> tuple[bytes, Headers]:
        connection.timeout = _remaining_s(deadline)
        if connection.sock is None:
            connection.connect()
        sock: socket.socket = connection.sock
        sock.settimeout(_remaining_s(deadline))
        connection.request(method, self._prefix + path, body, {**self._proxy_headers, **headers})
        response = connection.getresponse()
        content = bytearray()
        while chunk := response.read1(_CHUNK):
            content += chunk
            sock.settimeout(_remaining_s(deadline))
        response.close()
        if connection.sock is not None:  # the server keeps it open
            self._free.append(connection)
        _check(response.status, bytes(content))
        return bytes(content), response.headers  # type: ignore[return-value]

    def _connection(self) -> http.client.HTTPConnection:
        place = self._proxy or self._address
        if self._context is None:
            return http.client.HTTPConnection(place.host, place.port)
        connection = http.client.HTTPSConnection(place.host, place.port, context=self._context)
        if self._proxy:
            connection.set_tunnel(self._address.host, self._address.port, headers=dict(self._proxy.headers))
        return connection


class AsyncHttp:
    """A session of aiohttp."""

    def __init__(self, address: Address, tls: Tls) -> None:
        import aiohttp

        proxy = address.proxy()
        context = tls.context() if address.encrypted else True
        self._url = address.url
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        self._options: dict[str, Any] = {"allow_redirects": False, "skip_auto_headers": ["Accept-Encoding"]}
        if proxy:
            self._options |= {"proxy": f"http://{proxy.host}:{proxy.port}", "proxy_headers": dict(proxy.headers)}

    async def infer(self, model: str, inputs: list[Any], headers: Headers, timeout_s: float) -> Any:
        """As `Transport.infer`."""
        body, extra = _request(inputs)
        return _result(*await self._send("POST", _infer(model), {**headers, **extra}, body, timeout_s))

    async def config(self, model: str, headers: Headers, timeout_s: float) -> Any:
        """As `Transport.config`."""
        return _object((await self._send("GET", _config(model), headers, None, timeout_s))[0])

    async def close(self) -> None:
        """As `Transport.close`."""
        await self._session.close()

    async def _send(
        self, method: str, path: str, headers: Headers, body: bytes | None, timeout_s: float
    ) -> tuple[bytes, Headers]:
        async with asyncio.timeout(timeout_s):
            url = self._url + path
            async with self._session.request(method, url, data=body, headers=headers, **self._options) as response:
                content = await response.read()
        _check(response.status, content)
        return content, response.headers


def _options(address: Address, tls: Tls) -> dict[str, Any]:
    credentials = tls.credentials() if address.encrypted else None
    return {"creds": credentials, "channel_args": [*wire.channel_options(address.netloc), *_RECONNECT]}


def _infer(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/infer"


def _config(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/config"


def _request(inputs: list[Any]) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request, and the headers that describe it."""
    import tritonclient.http

    body, json_bytes = tritonclient.http.InferenceServerClient.generate_request_body(inputs)
    return body, {} if json_bytes is None else {"Inference-Header-Content-Length": str(json_bytes)}


def _result(content: bytes, headers: Headers) -> Any:
    import tritonclient.http

    length = headers.get("Inference-Header-Content-Length")
    _object(content[: int(length)] if length else content)
    parse = tritonclient.http.InferenceServerClient.parse_response_body
    return parse(content, header_length=int(length) if length else None)


def _object(content: bytes) -> Any:
    """Parse JSON. The response may be something else, if it does not come from Triton."""
    from tritonclient.utils import InferenceServerException

    try:
        return json.loads(content)
    except ValueError as error:
        raise InferenceServerException(f"the response is not JSON: {content[:60]!r}", "200") from error


def _check(status: int, content: bytes) -> None:
    """Raise tritonclient's exception, with the message of the server or of a proxy, unless the status is 200."""
    from tritonclient.utils import InferenceServerException

    if status == HTTPStatus.OK:
        return
    try:
        message = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        phrase = next((known_status.phrase for known_status in HTTPStatus if known_status == status), "")
        message = f"HTTP {status} {phrase}".strip()
    raise InferenceServerException(message, status=str(status))


def _remaining_s(deadline: float) -> float:
    """Return the seconds until the deadline of a request.

    Raises:
        TimeoutError: the deadline has passed.
    """
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s
