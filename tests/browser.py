"""A headless Chromium that tests drive by its DevTools protocol: pages are clicked, typed into and downloaded from."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
)
START_SECONDS = 60


class Browser:
    """One page at a time; what it downloads comes to `folder`/downloads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.downloads = folder, folder / "downloads"
        self.downloads.mkdir()
        self.number, self.errors = 0, [""] * 0

    def __enter__(self) -> Self:
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
            f"--user-data-dir={self.folder / 'profile'}", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._connect())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.loop.run_until_complete(self.client.close())
        self.loop.close()
        self.process.terminate()
        self.process.wait(20)

    async def _connect(self) -> None:
        port, path = self._address()
        self.client = aiohttp.ClientSession()
        self.socket = await self.client.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
        self.session: str | None = None
        target = await self._send("Target.createTarget", url="about:blank")
        attached = await self._send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._send(f"{domain}.enable")
        behaviour = {"behavior": "allow", "downloadPath": str(self.downloads)}
        await self._send("Browser.setDownloadBehavior", **behaviour)

    def _address(self) -> tuple[str, str]:
        file, deadline = self.folder / "profile/DevToolsActivePort", time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if file.exists() and len(lines := file.read_text().splitlines()) == 2:
                return lines[0], lines[1]
            time.sleep(0.05)
        raise RuntimeError("Chromium did not start")

    async def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        await self.socket.send_json(message)
        while True:
            answer = json.loads((await self.socket.receive()).data)
            self._note(answer)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _note(self, event: dict[str, Any]) -> None:
        """What the page complained of: exceptions, and what its policy refused."""
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.errors.append(event["params"]["entry"]["text"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.loop.run_until_complete(self._send(method, **parameters))

    def open(self, page: Path) -> None:
        """Load a file; returns when the document is complete."""
        self._call("Page.navigate", url=page.as_uri())
        self.wait_for(f"document.readyState === 'complete' && location.href === {json.dumps(page.as_uri())}")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        given = {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        found = self._call("Runtime.evaluate", **given)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + START_SECONDS
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise RuntimeError(f"never came true: {condition}")
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of what is seen of an element."""
        box = f"JSON.stringify(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        place = json.loads(self.run(box))
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """One key, such as `a` or `ArrowLeft`."""
        text = {"text": key} if len(key) == 1 else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def downloaded(self, name: str) -> Path:
        """The file, as soon as it is there."""
        deadline = time.monotonic() + START_SECONDS
        while not (self.downloads / name).exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} was not downloaded; there is {list(self.downloads.iterdir())}")
            time.sleep(0.05)
        return self.downloads / name
