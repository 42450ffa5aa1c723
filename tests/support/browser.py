"""A real browser without a window, through its own protocol: what a page fetches, complains of, and looks like."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 60
COMMAND = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class Browser:
    """One page. `requests`: every address that it asked for; `errors`: what its console had to say."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._count, self._session = connection, 0, None
        self._seen: set[str] = set()
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{domain}.enable")

    def open(self, path: Path, width: int, light: str) -> None:
        """Load a file in a window of `width` CSS pixels, in "light" or "dark", and wait until it is whole."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": light}])
        self._ask("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._hear()

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is on this page."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        said = self._ask("Page.captureScreenshot", clip=size | {"scale": 1}, captureBeyondViewport=True)
        return base64.b64decode(said["data"])

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": params, **session}))
        while True:
            heard = self._hear()
            if heard.get("id") == self._count:
                assert "error" not in heard, heard
                return dict(heard["result"])

    def _hear(self) -> dict[str, Any]:
        heard = dict(json.loads(self._connection.recv(timeout=PATIENCE_S)))
        method, said = heard.get("method", ""), heard.get("params", {})
        self._seen.add(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(said["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.errors.append(str(said["args"]))
        return heard


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser of its own in `folder`, which finds no host; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium: `apt install chromium`")
    process = subprocess.Popen(
        [program, *COMMAND, NOWHERE, f"--user-data-dir={folder / 'browser'}", "about:blank"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        address = next(line.split()[-1] for line in process.stderr if line.startswith("DevTools listening on "))
        with connect(address, max_size=None) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
