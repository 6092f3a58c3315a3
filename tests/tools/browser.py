"""Pages as a reader has them: Chromium without a window, at the width of a phone or of a desk.

Chromium is driven over two pipes, by the same messages that its developer tools use, so nothing listens on a port.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: The names that systems install it by.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: A page of the site is shown in half a second; a busy machine takes longer.
PATIENCE = 40.0


def chromium() -> str | None:
    """The program, or None where it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


OPTIONS = [
    "--headless=new",
    "--no-sandbox",  # root, as in a container, has none; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


def _pipe() -> tuple[int, int]:
    """One whose descriptors are not among those that Chromium gets them as."""
    pair = os.pipe()
    moved = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in pair)
    for fd in pair:
        os.close(fd)
    return moved[0], moved[1]


class Browser:
    """One Chromium with one page. A window has a least width of 500 pixels, so the width of the screen is emulated."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        ours_in, theirs_out = _pipe()
        theirs_in, ours_out = _pipe()
        command = [program, *OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        # Chromium reads descriptor 3 and writes descriptor 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._in, selectors.EVENT_READ)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        self._session = ""
        try:
            targets = self.call("Target.getTargets")["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            self.call("Page.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the whole group of processes: each page has some of its own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What Chromium answers. Raises RuntimeError where it refuses."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        rest = memoryview(json.dumps(message).encode() + b"\0")
        while rest:
            rest = rest[os.write(self._out, rest) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            if not self._selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"Chromium said nothing for {PATIENCE:g} seconds")
            got = os.read(self._in, 1 << 20)
            if not got:
                raise RuntimeError(f"Chromium has ended, exit code {self._process.wait()}")
            self._buffer += got
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def show(self, page: Path, width: int, height: int = 800) -> None:
        """Load the file *page* on a screen of *width* by *height* pixels, and wait until it is complete."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            screenWidth=width,
            screenHeight=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())

    def value(self, expression: str) -> Any:
        """The value of a JavaScript *expression* in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """Write what is on the screen into *file*, a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
