"""A Chromium whose tabs are really hidden and frozen.

Playwright keeps every page visible and in focus. So this uses the DevTools protocol directly: a tab behind
another one is hidden, and a hidden one can be frozen, as a phone does to save its battery.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.browser.page.browser import FLAGS, program
from tests.support.waiting import PATIENCE, until


class Chromium:
    """A running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        try:
            async for text in self._socket:
                message = json.loads(text)
                if (reply := self._replies.pop(message.get("id", 0), None)) is not None:
                    reply.set_result(message)
        except ConnectionClosed:
            pass

    async def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._replies[number] = answer = asyncio.get_running_loop().create_future()
        request = {"id": number, "method": method, "params": parameters}
        await self._socket.send(json.dumps(request | ({"sessionId": session} if session else {})))
        with anyio.fail_after(PATIENCE):
            reply = await answer
        assert "error" not in reply, (method, reply)
        result: dict[str, Any] = reply["result"]
        return result

    async def tab(self, address: str = "about:blank") -> "Tab":
        """Open a tab in front of all others."""
        target = (await self.ask("Target.createTarget", url=address))["targetId"]
        session = (await self.ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        return Tab(self, target, session)


class Tab:
    """A page in a tab, with nothing simulated."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    async def read(self, expression: str) -> Any:
        """Evaluate in the page."""
        reply = await self._browser.ask(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True
        )
        return reply["result"].get("value")

    async def comes_to_read(self, expression: str, value: object) -> None:
        """Wait until it evaluates to this."""
        deadline = time.monotonic() + PATIENCE
        while (found := await self.read(expression)) != value:
            assert time.monotonic() < deadline, f"{expression} is {found!r}, not {value!r}"
            await asyncio.sleep(0.02)

    async def front(self) -> None:
        """Bring it to the front, which hides the other tabs."""
        await self._browser.ask("Target.activateTarget", targetId=self._target)
        await self.comes_to_read("document.visibilityState", "visible")

    async def preload(self, function: str) -> None:
        """Call a function of JavaScript in each page from now on, before the page's own scripts."""
        await self._browser.ask("Page.enable", self._session)
        await self._browser.ask(
            "Page.addScriptToEvaluateOnNewDocument", self._session, source=f"({function})()"
        )

    async def go(self, address: str) -> None:
        """Follow a link to another page."""
        await self._browser.ask("Page.navigate", self._session, url=address)

    async def back(self) -> None:
        """Go back in the history."""
        await self.read("history.back()")

    async def close(self) -> None:
        """Close the tab."""
        await self._browser.ask("Target.closeTarget", targetId=self._target)

    async def set_offline(self, *, offline: bool) -> None:
        """Take the page's network away, or give it back; connections that are open stay."""
        await self._browser.ask(
            "Network.emulateNetworkConditions", self._session,
            offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1,
        )  # fmt: skip

    async def freeze(self) -> None:
        """Freeze the page, which must be hidden."""
        await self._browser.ask("Page.setWebLifecycleState", self._session, state="frozen")

    async def thaw(self) -> None:
        await self._browser.ask("Page.setWebLifecycleState", self._session, state="active")


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Chromium]:
    """Run a separate browser on an empty profile."""
    child = subprocess.Popen(
        [program(), "--headless", *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        written = await until(lambda: _complete(profile / "DevToolsActivePort"))
        port, path = written.split("\n")[:2]
        async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, ping_interval=None) as socket:
            browser = Chromium(socket)
            listening = asyncio.create_task(browser.listen())
            try:
                yield browser
            finally:
                listening.cancel()
    finally:
        child.terminate()
        try:
            await asyncio.to_thread(child.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _complete(path: Path) -> str:
    text = path.read_text() if path.exists() else ""
    return text if "\n" in text else ""
