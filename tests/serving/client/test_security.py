"""TLS, client certificates, tokens and headers, through a gateway before the server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest

from serving.client import (
    AccessDenied,
    Client,
    TlsError,
    Unavailable,
)
from tests.support import gateway
from tests.support.toy_client import EACH_WAY, OLD, Toy, predicted


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> gateway.Files:
    return gateway.certificates(tmp_path_factory.mktemp("tls"))


def gated(toy: Toy, protocol: str, *arguments: Any, **options: Any) -> AbstractContextManager[str]:
    """Yield HOST:PORT of a gateway with TLS before the server."""
    return {"grpc": gateway.grpcs, "http": gateway.https}[protocol](
        getattr(toy.endpoint, protocol), *arguments, **options
    )


@EACH_WAY
def test_tls_with_a_private_authority_and_a_client_certificate(
    toy: Toy, files: gateway.Files, protocol: str, asynchronous: bool
) -> None:
    row, expected = {"town": "Ulm"}, toy.expected([{"town": "Ulm"}])
    with gated(toy, protocol, files.server, client_ca=files.ca) as address:
        options: dict[str, Any] = {"ca": files.ca, "certificate": files.client}
        answer = predicted(f"{protocol}s://{address}", row, asynchronous, **options)
        assert list(answer["probabilities"].values()) == pytest.approx(expected[0].tolist(), abs=1e-5)
        for wrong in ({"certificate": files.client}, options | {"ca": files.other}):
            with pytest.raises(TlsError):
                predicted(f"{protocol}s://{address}", row, asynchronous, **wrong)
        with pytest.raises((TlsError, Unavailable), match="certificate"):  # gRPC does not report the reason
            predicted(f"{protocol}s://{address}", row, asynchronous, ca=files.ca, retry_s=0)
    with gated(toy, protocol, files.elsewhere) as address, pytest.raises(TlsError):
        predicted(f"{protocol}s://{address}", row, asynchronous, ca=files.ca)
    with pytest.raises((TlsError, Unavailable), match="TLS"):
        predicted(f"{protocol}s://{getattr(toy.endpoint, protocol)}", row, asynchronous, ca=files.ca, retry_s=0)


@EACH_WAY
def test_a_token_and_headers_are_sent_with_every_request(
    toy: Toy, files: gateway.Files, protocol: str, asynchronous: bool
) -> None:
    fetched = 0

    def token() -> str:
        nonlocal fetched
        fetched += 1
        return "secret"

    async def later() -> str:
        return token()

    row = {"town": "Ulm"}
    with gated(toy, protocol, files.server, token="secret") as address:
        ask = partial(predicted, f"{protocol}s://{address}", row, asynchronous, ca=files.ca)
        for given in ("secret", token, *([later] if asynchronous else [])):
            assert ask(token=given)["release"] == OLD
        assert fetched == (4 if asynchronous else 2)
        assert ask(headers={"Authorization": "Bearer secret"})["release"] == OLD
        for wrong in ({}, {"token": "guessed"}):
            with pytest.raises(AccessDenied):
                ask(**wrong)


WRONG_SETTINGS = [
    {"headers": {"a b": "c"}},
    {"headers": {"a": "b\r\nc: d"}},
    {"headers": {"a": 5}},
    *({"timeout_s": seconds} for seconds in ("x", 0, -1, float("nan"), float("inf"))),
    {"retry_s": -1},
    {"ca": "ca.pem"},
    {"certificate": ("server.pem", "ca.pem"), "server": "https://a"},
    {"ca": "server.key", "server": "https://a"},
    {"server": "https://user:word@a"},
    {"server": "grpc://a:1/b"},
]


@pytest.mark.parametrize("given", WRONG_SETTINGS, ids=str)
def test_invalid_settings_are_rejected_before_anything_is_sent(
    files: gateway.Files, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.ca.parent)
    with pytest.raises(ValueError):
        Client(**{"server": "a:1", "model": "toy", **given})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        Client("grpcs://a", "toy", ca="nowhere.pem")
