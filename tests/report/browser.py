"""Chromium without a screen, driven through ChromeDriver's own protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
NO_GL = ("--disable-gpu", "--disable-3d-apis")


def find_browser() -> tuple[str, str] | None:
    """Paths of a Chromium and its ChromeDriver; None where one of them is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def install_browser() -> str:
    """Try to install both where the system is Debian's and may be changed; "" or why not."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return "chromium and chromium-driver are not installed, and cannot be by this user"
    command = ["apt-get", "install", "-y", "-q", "chromium", "chromium-driver"]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for before in (None, ["apt-get", "update", "-q"]):
        if before and subprocess.run(before, capture_output=True, env=quiet).returncode:
            break
        if subprocess.run(command, capture_output=True, env=quiet).returncode == 0:
            return ""
    return "chromium and chromium-driver could not be installed"


class Browser:
    """One window."""

    def __init__(self, address: str, session: str) -> None:
        self.address = f"{address}/session/{session}"

    def open(self, path: Path) -> None:
        _ask("POST", f"{self.address}/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return _ask(
            "POST", f"{self.address}/execute/sync", {"script": script, "args": list(arguments)}
        )

    def wait(self, script: str, seconds: float = 180) -> Any:
        """What an expression gives once it is true.

        Raises:
            TimeoutError: If it does not become true.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(f"return {script}")
            if value:
                return value
            time.sleep(0.2)
        raise TimeoutError(f"never became true in {seconds:.0f} s: {script}")

    def size(self, width: int, height: int) -> None:
        _ask("POST", f"{self.address}/window/rect", {"width": width, "height": height})

    def press(self, key: str) -> None:
        """A key, sent to whatever has the focus."""
        steps = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": steps})

    def click(self, x: float, y: float) -> None:
        """The left button at a place in the window."""
        steps: list[dict[str, Any]] = [
            {"type": "pointerMove", "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._act({"type": "pointer", "id": "mouse", "actions": steps})

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(_ask("GET", f"{self.address}/screenshot"))

    def pdf(self) -> bytes:
        """The page printed with its own page size."""
        return base64.b64decode(
            _ask(
                "POST",
                f"{self.address}/print",
                {
                    "background": False,
                    "shrinkToFit": False,
                    "page": {"width": 21.0, "height": 29.7},
                },
            )
        )

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries since the last call: ``browser`` (console) or ``performance`` (network)."""
        found: list[dict[str, Any]] = _ask("POST", f"{self.address}/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        """Addresses the page asked for, other than its own file and data it holds itself."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        asked: list[str] = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"].startswith("file:")
        ]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]

    def _act(self, source: dict[str, Any]) -> None:
        _ask("POST", f"{self.address}/actions", {"actions": [source]})


@contextmanager
def browse(programs: tuple[str, str], flags: tuple[str, ...] = SOFTWARE_GL) -> Iterator[Browser]:
    """A browser of its own, closed in the end."""
    chromium, driver = programs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _until_ready(address)
            wanted = {
                "browserName": "chrome",
                "timeouts": {"script": 240_000, "pageLoad": 240_000},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
                "goog:chromeOptions": {
                    "binary": chromium,
                    "args": [*QUIET, *flags, f"--user-data-dir={profile}"],
                },
            }
            session = _ask("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})[
                "sessionId"
            ]
            browser = Browser(address, session)
            try:
                yield browser
            finally:
                _ask("DELETE", browser.address)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _until_ready(address: str) -> None:
    for _ in range(100):
        try:
            if _ask("GET", f"{address}/status")["ready"]:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError("chromedriver did not start")


def _ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=180) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"]) from error
