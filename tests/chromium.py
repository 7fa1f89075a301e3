"""A headless Chromium, driven through ChromeDriver's HTTP interface (W3C WebDriver) with the standard library."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (  # of the background networking, so that every request there is, is the page's
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One browser window."""

    def __init__(self, driver: str, session: str):
        self.address = f"{driver}/session/{session}"

    def open(self, page: Path, width: int, height: int) -> None:
        """Load a file in a viewport of the given size, and forget the logs of what came before."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.console(), self.requests()
        call(f"{self.address}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments):
        """Run JavaScript in the page and return what it returns."""
        return call(f"{self.address}/execute/sync", {"script": script, "args": list(arguments)})

    def console(self) -> list[str]:
        """What the page wrote to the console, errors of the browser included, since the last call."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """The addresses requested since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def _log(self, kind: str) -> list[dict]:
        return call(f"{self.address}/se/log", {"type": kind})

    def _cdp(self, command: str, **parameters):
        return call(f"{self.address}/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start ChromeDriver and a browser with the empty `profile` folder; end both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [CHROMEDRIVER, f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(profile)},
    )
    try:
        wait_for(f"{driver}/status")
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile / 'chromium'}"]}
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = call(f"{driver}/session", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        yield Browser(driver, session)
        call(f"{driver}/session/{session}", method="DELETE")
    finally:
        process.terminate()
        process.wait(timeout=30)


def call(address: str, content: dict | None = None, method: str | None = None):
    """One WebDriver command; its value."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{address}: {json.load(error)['value']['message']}") from None


def wait_for(address: str) -> None:
    for _ in range(200):
        try:
            call(address)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"{address} does not answer")
