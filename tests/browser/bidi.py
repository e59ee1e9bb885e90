"""A Firefox, driven by WebDriver BiDi: its pages are shown, left and closed as by a user."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.waiting import PATIENCE, until

_PROGRAMS = ("firefox-esr", "firefox")
_SETTINGS = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
}
_LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


class Firefox:
    """A running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Execute a command; its result. Commands run one after the other."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        with anyio.fail_after(PATIENCE):
            while (reply := json.loads(await self._socket.recv())).get("id") != number:
                pass
        assert reply["type"] == "success", (method, reply)
        result: dict[str, Any] = reply["result"]
        return result

    async def tab(self, address: str) -> "FirefoxTab":
        """Open a tab."""
        context = (await self.ask("browsingContext.create", type="tab"))["context"]
        tab = FirefoxTab(self, context)
        await tab.go(address)
        return tab


class FirefoxTab:
    """A page in a tab."""

    def __init__(self, browser: Firefox, context: str) -> None:
        self._browser = browser
        self._context = context

    async def read(self, expression: str) -> Any:
        """Evaluate in the page."""
        reply = await self._browser.ask(
            "script.evaluate", expression=expression, target={"context": self._context}, awaitPromise=True
        )
        return reply["result"].get("value")

    async def preload(self, function: str) -> None:
        """Call a function of JavaScript in each page from now on, before the page's own scripts."""
        await self._browser.ask(
            "script.addPreloadScript", functionDeclaration=function, contexts=[self._context]
        )

    async def go(self, address: str) -> None:
        """Follow a link to another page."""
        await self._browser.ask(
            "browsingContext.navigate", context=self._context, url=address, wait="complete"
        )

    async def back(self) -> None:
        """Go back in the history."""
        await self._browser.ask("browsingContext.traverseHistory", context=self._context, delta=-1)

    async def close(self) -> None:
        """Close the tab."""
        await self._browser.ask("browsingContext.close", context=self._context)


def _program() -> str:
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    pytest.skip("Firefox is not installed")


@asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Firefox]:
    """Run a separate browser on an empty profile. Skips the test where there is none."""
    program = _program()
    profile.mkdir(exist_ok=True)
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _SETTINGS.items())
    (profile / "user.js").write_text("".join(lines))
    log = profile / "stderr.log"
    with log.open("w") as stderr:
        child = subprocess.Popen(
            [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            env={**os.environ, "HOME": str(profile)},
        )  # fmt: skip
    try:
        address = (await until(lambda: _LISTENING.search(log.read_text())))[1]
        async with connect(f"{address}/session", max_size=None, ping_interval=None) as socket:
            browser = Firefox(socket)
            await browser.ask("session.new", capabilities={})
            yield browser
    finally:
        child.terminate()
        try:
            await asyncio.to_thread(child.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
