"""A real headless browser for tests of pages: Chromium from the system's packages, spoken to over DevTools' protocol.

It is started by the test session once, opens pages from disk, and notes every request and every console error.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--use-angle=swiftshader",  # WebGL2 without a GPU
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    *(("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()),
)
PATIENCE_S = 120.0  # a machine under load starts a browser slowly


def find_browser() -> str | None:
    """The browser's command, None where there is none; CHROMIUM names another."""
    return next(
        (found for name in (os.environ.get("CHROMIUM", ""), *NAMES) if name and (found := shutil.which(name))), None
    )


@contextlib.contextmanager
def running_browser(command: str) -> Iterator[str]:
    """Start a browser with a profile of its own; its DevTools address. It is ended at the end."""
    with tempfile.TemporaryDirectory(prefix="occfactory-browser-", ignore_cleanup_errors=True) as profile:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=quiet, stderr=quiet
        )
        try:
            yield _address(Path(profile) / "DevToolsActivePort", process)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_S)


def _address(file: Path, process: subprocess.Popen) -> str:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        lines = file.read_text().split() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise RuntimeError(f"the browser didn't start (status {process.poll()})")


class Page:
    """A tab. requests: URLs asked for, but for the page itself and data in it; errors: of console and scripts."""

    def __init__(self, connection: ClientConnection, session: str):
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._connection, self._session, self._count, self._loaded = connection, session, 0, False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, "sessionId": self._session}
        self._connection.send(json.dumps(message))
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, timeout: float = PATIENCE_S) -> dict[str, Any]:
        answer = json.loads(self._connection.recv(timeout=timeout))
        about = answer.get("params", {})
        match answer.get("method"):
            case "Network.requestWillBeSent":
                url = about["request"]["url"]
                if url.split(":")[0] not in ("data", "blob") and about.get("type") != "Document":
                    self.requests.append(url)
            case "Runtime.exceptionThrown":
                self.errors.append(about["exceptionDetails"].get("exception", {}).get("description", "exception"))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.errors.append(about["entry"]["text"])
            case "Page.loadEventFired":
                self._loaded = True
        return answer

    def open(self, path: Path, width: int = 1200, height: int = 800, phone: bool = False) -> None:
        """Open a file at a window's size [CSS px] and wait until it is loaded."""
        self._loaded = False
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        while not self._loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited. Raises RuntimeError."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. Raises TimeoutError."""
        until = time.monotonic() + PATIENCE_S
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > until:
                raise TimeoutError(f"{condition}; errors: {self.errors}")
            time.sleep(0.02)

    def box(self, selector: str) -> dict[str, float]:
        """An element's x, y, width and height in the window [CSS px]."""
        return self.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")

    def picture(self, selector: str = "") -> np.ndarray:
        """What is seen, or an element of it: RGB (H, W, 3)."""
        clip = {}
        if selector:
            box = self.box(selector)
            clip = {"clip": {**{key: box[key] for key in ("x", "y", "width", "height")}, "scale": 1}}
        content = self.call("Page.captureScreenshot", format="png", **clip)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))

    def drag(self, start: tuple[float, float], end: tuple[float, float], modifiers: int = 0) -> None:
        """Press, move and release the mouse [CSS px]."""
        common = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": modifiers}
        for kind, (x, y) in (("Pressed", start), ("Moved", end), ("Released", end)):
            self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **common)

    def press(self, key: str) -> None:
        """One key, by its DOM name."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)


@contextlib.contextmanager
def new_page(address: str) -> Iterator[Page]:
    """A tab of its own, closed at the end."""
    with connect(address, max_size=1 << 28, compression=None, proxy=None) as connection:
        connection.send(json.dumps({"id": 0, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
        target = _answer(connection, 0)["targetId"]
        parameters = {"targetId": target, "flatten": True}
        connection.send(json.dumps({"id": 0, "method": "Target.attachToTarget", "params": parameters}))
        yield Page(connection, _answer(connection, 0)["sessionId"])
        connection.send(json.dumps({"id": 0, "method": "Target.closeTarget", "params": {"targetId": target}}))


def _answer(connection: ClientConnection, number: int) -> dict[str, Any]:
    while True:
        message = json.loads(connection.recv(timeout=PATIENCE_S))
        if message.get("id") == number:
            return message["result"]
