"""A headless Chromium, told what to do through the pipe of its DevTools protocol: no driver and no network port.

with Browser() as browser:
    page = browser.open(Path("report.html"), width=390)
    page.evaluate("document.title")
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def missing() -> bool:
    return not any(map(shutil.which, PROGRAMS))


class Browser:
    def __enter__(self) -> "Browser":
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        theirs, self._to = os.pipe()
        self._from, their_answers = os.pipe()
        options = ["--headless", "--remote-debugging-pipe", "--disable-gpu", f"--user-data-dir={self._profile.name}"]
        options += ["--no-sandbox", "--no-first-run", "--disable-extensions", "--disable-background-networking"]
        program = next(filter(None, map(shutil.which, PROGRAMS)))
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec 3<&{theirs} 4>&{their_answers}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "sh", program, *options],
            pass_fds=(theirs, their_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (theirs, their_answers):
            os.close(descriptor)
        self._rest, self._number, self.said = b"", 0, []
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.ask("Browser.close")
        self._process.kill()
        self._process.wait()
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        self._profile.cleanup()

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps({**asked, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while (answer := self._hear()).get("id") != self._number:
            self.said.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, method: str, session: str) -> None:
        """Until the browser has said it of the session, since the last time."""
        while not any(said.get("method") == method and said.get("sessionId") == session for said in self.said):
            self.said.append(self._hear())

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._from, 1 << 16)
            assert read, "the browser is gone"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, file: Path, *, width: int, dark: bool = False, height: int = 900) -> "Page":
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        phone = width < 700
        screen = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.ask("Emulation.setDeviceMetricsOverride", session, **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", session, features=[scheme])
        self.said.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", session)
        self.ask("Page.navigate", session, url=file.as_uri())
        self.wait("Page.loadEventFired", session)
        return Page(self, session)


class Page:
    def __init__(self, browser: Browser, session: str):
        self._browser, self._session = browser, session

    def evaluate(self, expression: str) -> Any:
        told = self._browser.ask("Runtime.evaluate", self._session, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        """Whatever its console holds, and what it could not do."""
        self.evaluate("1")  # what was said before is heard before the answer
        named = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
        return [said for said in self._browser.said if said.get("method") in named]

    def fetched(self) -> list[str]:
        """Addresses that the page asked for, besides its own file and what it holds itself."""
        asked = [
            s["params"]["request"]["url"] for s in self._browser.said if s.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked[1:] if not url.startswith("data:")]

    def picture(self, file: Path) -> None:
        import base64

        size = self.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        told = self._browser.ask("Page.captureScreenshot", self._session, clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told["data"]))
